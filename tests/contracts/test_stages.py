"""dvc.yaml names what each stage really imports and reads: DVC does not follow imports."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.contracts.pipeline import ROOT, Stage, covers, imported_files, sections_read, stages

SOURCES = ("blogtune", "stages")
# All that blogtune/__init__.py does; it is no dependency.
FACE = "import blogtune.common"
# Names that DVC's run cache leaves out of its key: a change would bring the old output back.
INVISIBLE = {"size", "nfiles"}
# Sections of commands beside the pipeline, which no stage may read.
COMMANDS = {"export", "publish"}

each_stage = pytest.mark.parametrize("stage", stages(), ids=lambda stage: stage.name)


def sources(stage: Stage) -> list[str]:
    return [each for each in stage.dependencies if each.split("/")[0] in SOURCES]


def files_of(dependency: str) -> set[str]:
    path = ROOT / dependency
    files = [path] if path.is_file() else path.rglob("*.py")
    return {str(file.relative_to(ROOT)) for file in files}


@each_stage
def test_every_file_a_stage_imports_is_a_dependency(stage: Stage) -> None:
    imported = imported_files(stage.script.removesuffix(".py").replace("/", "."))
    missing = {file for file in imported if not any(covers(d, file) for d in sources(stage))}
    assert missing == {"blogtune/__init__.py"}


@each_stage
def test_every_source_dependency_is_imported_and_no_other(stage: Stage) -> None:
    imported = imported_files(stage.script.removesuffix(".py").replace("/", "."))
    assert {each for each in sources(stage) if not files_of(each) & imported} == set()


# What an edit in a folder of the library reruns, all the rest being as it was.
ANSWER = {"answer@base", "answer@finetuned", "answer@fused"}
RERUNS = {
    "answering": {*ANSWER, "probe", "compare"},
    "baselines": {"baselines"},
    "chatting": set(),
    "checking": {"check_judge", "compare"},
    "common": {stage.name for stage in stages()},
    "comparing": {"compare"},
    "cpu": {"train", "fuse", *ANSWER, "judge", "check_judge", "probe"},
    "data": {"prepare"},
    "exporting": set(),
    "fetching": {"fetch"},
    "fusing": {"fuse"},
    "judging": {"judge", "check_judge", "probe"},
    "models": {"train", "fuse", *ANSWER, "judge", "check_judge", "probe"},
    "ollama": {"judge", "check_judge"},
    "probing": {"probe"},
    "project": set(),
    "publishing": set(),
    "runtime": {"train", "fuse", *ANSWER, "judge", "check_judge", "probe"},
    "statistics": {"check_judge", "probe", "compare"},
    "training": {"train"},
}


@pytest.mark.parametrize("folder", RERUNS)
def test_an_edit_reruns_what_it_can_change_and_nothing_else(folder: str) -> None:
    edited = f"blogtune/{folder}/new.py"
    found = {stage.name for stage in stages() if any(covers(d, edited) for d in sources(stage))}
    assert found == RERUNS[folder]


def test_every_folder_of_the_library_stands_in_that_table_and_no_module_beside_them() -> None:
    entries = {path.name for path in (ROOT / "blogtune").iterdir() if path.name[0] != "_"}
    assert entries == set(RERUNS)


def test_the_library_s_own_face_holds_nothing_that_a_stage_depends_on() -> None:
    docstring, only = ast.parse((ROOT / "blogtune/__init__.py").read_text(encoding="utf-8")).body
    assert (ast.unparse(docstring)[0], ast.unparse(only)) in {('"', FACE), ("'", FACE)}


@each_stage
def test_the_parameters_of_a_stage_are_the_sections_it_reads(stage: Stage) -> None:
    assert set(stage.parameters) == sections_read(stage.script)


def test_every_section_of_the_parameters_is_used() -> None:
    used = {name.split(".")[0] for stage in stages() for name in stage.parameters}
    assert set(YAML(typ="safe").load(ROOT / "params.yaml")) == used | COMMANDS


def keys(values: object) -> set[str]:
    if not isinstance(values, dict):
        return set()
    return {str(key) for key in values} | {k for inner in values.values() for k in keys(inner)}


def test_no_key_has_a_name_that_the_run_cache_cannot_see() -> None:
    assert not keys(YAML(typ="safe").load(ROOT / "params.yaml")) & INVISIBLE


scripts = sorted((ROOT / "stages").glob("*.py"))


def test_there_is_a_script_for_each_stage_and_no_other() -> None:
    assert {path.stem for path in scripts} == {stage.name.split("@")[0] for stage in stages()}


@pytest.mark.parametrize("script", scripts, ids=lambda path: path.stem)
def test_a_stage_script_fits_on_a_screen(script: Path) -> None:
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 55


@pytest.mark.parametrize("script", scripts, ids=lambda path: path.stem)
def test_no_stage_imports_mlx_which_would_come_before_its_blas(script: Path) -> None:
    imported = {line.split()[1].split(".")[0] for line in _import_lines(script)}
    assert not imported & {"mlx", "mlx_lm"}


def test_library_modules_import_no_stage_and_no_command() -> None:
    for file in (ROOT / "blogtune").rglob("*.py"):
        imported = {line.split()[1].split(".")[0] for line in _import_lines(file)}
        assert not imported & {"stages", "commands"}


@pytest.mark.parametrize("package", ["data", "training", "judging"])
def test_data_training_and_judging_do_not_import_one_another(package: str) -> None:
    others = {f"blogtune.{each}" for each in ("data", "training", "judging") if each != package}
    for file in (ROOT / "blogtune" / package).glob("*.py"):
        imported = {".".join(line.split()[1].split(".")[:2]) for line in _import_lines(file)}
        assert not imported & others


def _import_lines(file: Path) -> list[str]:
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line.startswith(("import ", "from "))]
