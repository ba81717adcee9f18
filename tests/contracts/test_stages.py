"""dvc.yaml names what each stage really imports and reads: DVC does not follow imports."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.contracts.pipeline import ROOT, Stage, covers, imported_files, sections_read, stages

SOURCES = ("blogtune", "stages")
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
    assert not missing


@each_stage
def test_every_source_dependency_is_imported(stage: Stage) -> None:
    imported = imported_files(stage.script.removesuffix(".py").replace("/", "."))
    files = {file for dependency in sources(stage) for file in files_of(dependency)}
    assert not files - imported


@each_stage
def test_the_parameters_of_a_stage_are_the_sections_it_reads(stage: Stage) -> None:
    read = {name for names in sections_read(stage.script) for name in names.split("|")}
    if stage.name.startswith("fetch"):
        assert set(stage.parameters) <= read
    else:
        assert set(stage.parameters) == read


def test_every_section_of_the_parameters_is_used() -> None:
    used = {name.split(".")[0] for stage in stages() for name in stage.parameters}
    assert set(YAML(typ="safe").load(ROOT / "params.yaml")) == used | COMMANDS


def keys(values: object) -> set[str]:
    if not isinstance(values, dict):
        return set()
    return {str(key) for key in values} | {k for inner in values.values() for k in keys(inner)}


def test_no_key_has_a_name_that_the_run_cache_cannot_see() -> None:
    assert not keys(YAML(typ="safe").load(ROOT / "params.yaml")) & INVISIBLE


scripts = sorted(path for path in (ROOT / "stages").glob("*.py") if path.stem != "command")


@pytest.mark.parametrize("script", scripts, ids=lambda path: path.stem)
def test_a_stage_script_fits_on_a_screen(script: Path) -> None:
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 55


@pytest.mark.parametrize("script", scripts, ids=lambda path: path.stem)
def test_no_stage_imports_mlx_which_would_come_before_its_blas(script: Path) -> None:
    imported = {line.split()[1].split(".")[0] for line in _import_lines(script)}
    assert not imported & {"mlx", "mlx_lm"}


def test_library_modules_import_no_stage() -> None:
    for file in (ROOT / "blogtune").rglob("*.py"):
        assert "stages" not in {line.split()[1].split(".")[0] for line in _import_lines(file)}


@pytest.mark.parametrize("package", ["data", "training", "judging"])
def test_data_training_and_judging_do_not_import_one_another(package: str) -> None:
    others = {f"blogtune.{each}" for each in ("data", "training", "judging") if each != package}
    for file in (ROOT / "blogtune" / package).glob("*.py"):
        imported = {".".join(line.split()[1].split(".")[:2]) for line in _import_lines(file)}
        assert not imported & others


def _import_lines(file: Path) -> list[str]:
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line.startswith(("import ", "from "))]
