"""README is the reader's map, the documentation the rest: what they name is what is there."""

import json
import re
import subprocess
from collections import Counter
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from blogtune.common.params import RENAMED, Section
from blogtune.project.readme import PAGES, renewed
from blogtune.project.reference import COMMANDS, PARAMETERS, SCHEMA, comments, pages
from blogtune.project.settings import Settings
from tests.contracts.pipeline import ROOT, covers, of_the_default, stages

README = (ROOT / "README.md").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
# What a reader is told to do today; the log and the decisions tell of their day.
GUIDES = [
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "docs/index.md", "docs/tutorial.md")
    ),
    *sorted((ROOT / "docs/how-to").glob("*.md")),
    *sorted((ROOT / "docs/explanation").glob("*.md")),
]
SECTIONS = [
    "blogtune",
    "Two commands",
    "Where it has run",
    "The result",
    "The pipeline",
    "Your own data",
    "Another model",
    "Read these first",
    "Where everything is",
]
MAKE = r"(?:^|`)make ([a-z-]+)"
QUOTED = {"example", "results", "by post", "judge"}


def test_readme_has_a_thousand_words_at_most() -> None:
    assert len(README.split()) <= 1000


def test_readme_says_what_it_is_first_and_where_everything_is_last() -> None:
    # Not the comments of what stands in a block of commands.
    text = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    assert re.findall(r"^#+ (.*)$", text, re.MULTILINE) == SECTIONS


def test_readme_names_four_files_to_read_first() -> None:
    section = README.split("## Read these first")[1].split("\n## ")[0]
    assert len(re.findall(r"^\d\. \[", section, re.MULTILINE)) == 4


@of_the_default
def test_what_is_quoted_of_the_last_run_is_what_it_gave() -> None:
    now = renewed(ROOT)
    old = [str(page) for page in PAGES if (ROOT / page).read_text(encoding="utf-8") != now[page]]
    assert old == [], "run `make readme` and commit these pages with metrics/"


def test_each_quoted_part_has_one_place() -> None:
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    found = re.findall(r"<!-- ([\w ]+) -->\n.+?<!-- /\1 -->", text, re.DOTALL)
    assert Counter(found) == Counter(QUOTED)


def named(pattern: str) -> list[tuple[str, str]]:
    """What a pattern finds in the guides, each once, with the file that has it."""
    found = {
        (match, str(guide.relative_to(ROOT)))
        for guide in GUIDES
        for match in re.findall(pattern, guide.read_text(encoding="utf-8"), re.MULTILINE)
    }
    return sorted(found)


def test_every_make_target_that_a_guide_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
    assert len(named(MAKE)) > 20
    assert [each for each in named(MAKE) if each[0] not in targets] == []


def test_every_profile_that_a_guide_names_exists() -> None:
    there = {path.stem for path in (ROOT / "profiles").glob("*.yaml")}
    assert [each for each in named(r"PROFILE=([\w.-]+)") if each[0] not in there] == []


def test_every_script_that_a_guide_names_exists() -> None:
    scripts = named(r"python -m ((?:stages|commands)\.\w+)")
    # The stage that a guide shows how to add.
    example = ("stages.measure", "docs/how-to/add-a-stage.md")
    missing = [each for each in scripts if not (ROOT / f"{each[0].replace('.', '/')}.py").exists()]
    assert missing == [example]


def keys(kind: type[Section], where: str = "") -> set[str]:
    """The dotted names of a section's keys, sections themselves included."""
    schema = kind.model_json_schema()

    def inner(of: dict[str, object], where: str) -> set[str]:
        found: set[str] = set()
        properties = of.get("properties", {})
        assert isinstance(properties, dict)
        for key, value in properties.items():
            references = re.findall(r"#/\$defs/(\w+)", json.dumps(value))
            found |= {f"{where}{key}"}
            for reference in references:
                found |= inner(schema["$defs"][reference], f"{where}{key}.")
        return found

    return inner(schema, where)


def test_every_parameter_that_a_guide_names_exists() -> None:
    known, sections = keys(Settings), "|".join(Settings.model_fields)
    names = named(rf"`((?:{sections})\.[a-z_0-9.]+)(?=[`:])")
    assert len(names) > 50
    files = (".gguf", ".jsonl")
    assert [each for each in names if each[0] not in known and not each[0].endswith(files)] == []


@pytest.mark.parametrize(
    "link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)[)#]", README))), ids=lambda link: link
)
def test_every_link_of_readme_leads_to_a_file(link: str) -> None:
    assert (ROOT / link).exists()


def picture() -> list[tuple[str, str]]:
    """The arrows of README's picture."""
    block = README.split("```mermaid")[1].split("```")[0]
    lines = re.sub(r"\[.*?\]", "", block).strip().splitlines()[1:]
    chains = [line.strip().split(" --> ") for line in lines]
    return [arrow for chain in chains for arrow in pairwise(chain)]


def test_the_picture_shows_every_stage_and_what_really_flows() -> None:
    flows = {
        (one.name.split("@")[0], other.name.split("@")[0])
        for one in stages()
        for other in stages()
        if any(covers(d, o) or covers(o, d) for d in other.dependencies for o in one.outputs)
    }
    assert set(picture()) <= flows
    assert {name for arrow in picture() for name in arrow} == {
        name for flow in flows for name in flow
    }


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
    page = (ROOT / "docs/explanation/pipeline.md").read_text(encoding="utf-8")
    section = page.split("## The library")[1].split("\n## ")[0]
    told = re.findall(r"^\| `(\w+/)` \|", section, re.MULTILINE)
    assert Counter(told) == Counter(path.removeprefix("blogtune/") for path in library)


@pytest.fixture(scope="module")
def made() -> dict[Path, str]:
    return pages(ROOT)


@pytest.mark.parametrize("path", [PARAMETERS, COMMANDS, SCHEMA], ids=str)
def test_what_is_made_from_the_code_is_as_committed(path: Path, made: dict[Path, str]) -> None:
    """`make reference` renews it."""
    assert (ROOT / path).read_text(encoding="utf-8") == made[path]


def test_params_yaml_names_its_schema_and_every_key_has_a_meaning_there() -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert text.startswith(f"# yaml-language-server: $schema={SCHEMA}\n")
    lacking = {name for name, meaning in comments(text).items() if not meaning}
    # Sections whose name says it, and what a second judge's comment says of all its keys.
    lacking = {name for name in lacking if not name.startswith("judge.second.")}
    assert lacking <= {"data.split", "judge.check", "train.lora"}


def test_the_schema_takes_the_committed_parameters_and_no_unknown_key() -> None:
    schema = json.loads((ROOT / SCHEMA).read_text(encoding="utf-8"))
    values = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    jsonschema.validate(values, schema)
    values["train"]["itterations"] = 3
    with pytest.raises(jsonschema.ValidationError, match="itterations"):
        jsonschema.validate(values, schema)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_every_renamed_key_stands_in_the_changelog(old: str, new: str) -> None:
    assert re.search(rf"`{re.escape(old)}`.*`{re.escape(new)}`", CHANGELOG)
