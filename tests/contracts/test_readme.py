"""README is the reader's map: its tree, its commands and its figures are the repository's."""

import json
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from blogtune.project.readme import with_results
from blogtune.project.reference import COMMANDS, PARAMETERS, SCHEMA, comments, pages
from tests.contracts.pipeline import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_result_table_is_made_from_the_committed_metrics() -> None:
    assert with_results(README, ROOT) == README


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE)))
)
def test_every_make_target_that_readme_names_exists(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", MAKEFILE, flags=re.MULTILINE)


@pytest.mark.parametrize(
    "link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))), ids=lambda link: link
)
def test_every_link_of_readme_leads_to_a_file(link: str) -> None:
    assert (ROOT / link).exists()


def tree() -> list[str]:
    """The paths of README's annotated tree, folders with their slash."""
    block = README.split("## Where everything is")[1].split("```")[1]
    paths: list[str] = []
    folder = ""
    for line in block.strip().splitlines():
        names = re.split(r"\s{2,}", line.strip())[0].split()
        nested = line.startswith("  ")
        paths.extend(f"{folder if nested else ''}{name}" for name in names)
        folder = folder if nested else names[0]
    return paths


def generated(path: str) -> bool:
    """Whether git ignores the path: an output, absent from a fresh clone."""
    command = ["git", "check-ignore", "-q", path]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("path", tree())
def test_every_path_of_the_tree_is_there_or_an_output(path: str) -> None:
    assert (ROOT / path).exists() or generated(path)


def test_every_top_level_folder_and_library_part_stands_in_the_tree() -> None:
    command = ["git", "ls-files"]
    files = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    parts = [file.split("/") for file in files.splitlines()]
    folders = {f"{part[0]}/" for part in parts if len(part) > 1 and not part[0].startswith(".")}
    library = {f"blogtune/{part[1]}/" for part in parts if part[0] == "blogtune" and len(part) > 2}
    listed = tree()
    for folder in folders | library:
        assert any(path.startswith(folder) for path in listed), folder


@pytest.mark.parametrize("path", [PARAMETERS, COMMANDS, SCHEMA], ids=str)
def test_what_is_made_from_the_code_is_as_committed(path: Path) -> None:
    """`make reference` renews it."""
    assert (ROOT / path).read_text(encoding="utf-8") == pages(ROOT)[path]


def test_params_yaml_names_its_schema_and_every_key_has_a_meaning_there() -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert text.startswith(f"# yaml-language-server: $schema={SCHEMA}\n")
    lacking = [name for name, meaning in comments(text).items() if not meaning]
    # Sections whose name says it.
    assert set(lacking) <= {"data.split", "judge.check", "train.lora"}


def test_the_schema_takes_the_committed_parameters_and_no_unknown_key() -> None:
    schema = json.loads((ROOT / SCHEMA).read_text(encoding="utf-8"))
    values = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    jsonschema.validate(values, schema)
    values["train"]["itterations"] = 3
    with pytest.raises(jsonschema.ValidationError, match="itterations"):
        jsonschema.validate(values, schema)
