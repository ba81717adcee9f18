"""What dvc.yaml says of inputs and outputs, against what DVC itself makes of it."""

import os
import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo

from blogtune.common.errors import UserError
from blogtune.common.pipeline import (
    IGNORED,
    SOURCES,
    check_not_written,
    inputs,
    outputs,
    stamps,
)
from blogtune.common.sources import ModelParams
from blogtune.fetching.fetch import check_sources
from blogtune.project.settings import obstacles, read_settings, set_value
from tests.contracts.pipeline import ROOT, stages


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with this pipeline and some of its folders."""
    monkeypatch.chdir(tmp_path)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    for folder in ("models/base/inner", "data/processed", "data/raw", "models/mine"):
        Path(folder).mkdir(parents=True)
    for file in ("data/processed/train.jsonl", "data/paraphrases.jsonl"):
        Path(file).touch()
    return tmp_path


@pytest.mark.parametrize("stage", stages(), ids=lambda stage: stage.name)
def test_a_stage_s_inputs_are_those_that_dvc_knows(
    stage: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    read = {each for each in stage.dependencies if each.split("/")[0] not in SOURCES}
    assert {str(path) for path in inputs(stage.name.replace("@", " "))} == read


def test_the_outputs_are_those_that_dvc_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with Repo(str(ROOT)) as repo:
        known = {str(out) for stage in repo.index.stages for out in stage.outs}
    assert {str(path) for path in outputs()} == known
    assert len(known) > 10


def test_what_is_no_input_is_what_dvc_passes_over() -> None:
    lines = (ROOT / ".dvcignore").read_text().splitlines()
    anywhere = [line.rstrip("/") for line in lines if not line.startswith("/")]
    named = {each.replace("*", "x").replace("[co]", "c") for each in anywhere}
    assert all(IGNORED.fullmatch(name) for name in named)
    assert len(named) == len(IGNORED.pattern.split("|"))


def test_a_folder_s_files_are_known_by_size_time_and_inode(tmp_path: Path) -> None:
    file = tmp_path / "in/a.jsonl"
    file.parent.mkdir()
    file.write_text("a")
    (tmp_path / "in/.b.jsonl.x.partial").touch()
    os.mkfifo(tmp_path / "in/pipe")
    before = stamps([tmp_path])
    assert list(before) == [file]
    assert stamps([file]) == before
    os.utime(file, ns=(1, 1))
    assert stamps([tmp_path]) != before
    assert stamps([tmp_path / "none"]) == {}


REFUSED = {
    "an output": "models/base",
    "inside one": "models/base/inner",
    "a detour": "data/../models/./base",
    "a file of theirs": "data/processed/train.jsonl",
    "a folder that holds some": "data",
    "the whole project": ".",
    "a link to one": "link",
    "through a link": "link/inner",
    "not there yet": "models/fused",
    "from the root": "/",
}


@pytest.mark.parametrize("path", REFUSED.values(), ids=REFUSED)
def test_what_the_pipeline_writes_is_no_source(here: Path, path: str) -> None:
    (here / "link").symlink_to("models/base")
    with pytest.raises(UserError, match="is no place for your files: the pipeline writes"):
        check_not_written(Path(path), "data.path")
    with pytest.raises(UserError, match=r"^data\.path: "):
        check_not_written((here / path).resolve(), "data.path")
    with pytest.raises(UserError, match=f"^models/judge: path:{path}: "):
        check_sources({"base": None, "judge": ModelParams(source=f"path:{path}", revision=None)})


@pytest.mark.parametrize("path", ["data/raw", "models/mine", "data/raw/more", "../elsewhere"])
def test_other_places_are(here: Path, path: str) -> None:
    check_not_written(Path(path), "data.path")
    check_not_written(here / path, "data.path")


def test_all_such_keys_are_refused_before_any_work(here: Path) -> None:
    (here / "link").symlink_to("data/processed")
    set_value("model.source", "path:models/base")
    set_value("judge.model.source", "path:models/base/inner")
    set_value("data.path", "link/train.jsonl")
    keys = [problem.where for problem in obstacles(read_settings())]
    assert keys == ["model.source", "judge.model.source", "data.path"]


def test_what_was_fetched_may_be_read(here: Path) -> None:
    set_value("data.fetch.source", "hub:a/b")
    set_value("data.fetch.revision", "0" * 40)
    set_value("data.path", "data/fetched")
    assert obstacles(read_settings()) == []
    check_not_written(here / "data/fetched", "data.path", but=[Path("data/fetched")])


def test_a_pipe_among_the_data_is_told_before_anybody_waits_for_it(here: Path) -> None:
    os.mkfifo(here / "data/raw/pipe.jsonl")
    (told,) = map(str, obstacles(read_settings()))
    assert told == "data/raw/pipe.jsonl: a pipe, socket or device; save its data to a file"
