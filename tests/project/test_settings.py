"""`make use`: what a profile does to params.yaml, and what it is refused for."""

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from blogtune.common.errors import UserError
from blogtune.project.settings import (
    obstacles,
    profile_file,
    read_settings,
    set_value,
    use_profile,
)
from commands.use import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml and profiles/, in which the test runs."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def use(profile: str) -> list[str]:
    done = CliRunner().invoke(main, [profile])
    assert done.exit_code == 0, done.output
    return [line for line in done.output.splitlines() if not line.startswith("  before it runs")]


def test_every_change_is_told_and_counted() -> None:
    *changes, last = use("qwen3-0.6b")
    assert [line.partition(":")[0] for line in changes] == [
        "  model.source",
        "  train.learning_rate",
    ]
    assert last == (
        "params.yaml holds the profile qwen3-0.6b: 2 changes; other keys are as they were"
    )


@pytest.mark.parametrize(
    ("rate", "count"), [(8.0e-4, "0 changes"), (1.0e-3, "1 change")], ids=["none", "one"]
)
def test_the_count_is_in_good_grammar(rate: float, count: str) -> None:
    set_value("train.learning_rate", rate)
    assert f" smollm2: {count}; " in use("smollm2")[-1]


def test_a_profile_laid_over_itself_changes_nothing() -> None:
    assert use_profile(profile_file("tiny"))
    assert use_profile(profile_file("tiny")) == []


def test_without_a_name_the_profiles_are_listed() -> None:
    done = CliRunner().invoke(main, [], env={"PROFILE": ""})
    assert done.exit_code == 1
    assert "no PROFILE given; make use PROFILE=<name>: llama3.2-1b, phi3-mini" in done.output


def test_what_no_profile_names_stays() -> None:
    set_value("train.seed", 8)
    use("tiny")
    use("smollm2")
    assert read_settings().train.seed == 8


@pytest.mark.parametrize("name", ["../params", "./tiny", "/tmp/tiny", "tiny/"])
def test_a_path_is_no_profile(name: str) -> None:
    done = CliRunner().invoke(main, [name])
    assert done.exit_code == 1
    assert done.stderr == (f"error: PROFILE={name}: a path, not a name; name a file in profiles/\n")


def test_a_profile_with_a_bad_value_is_refused_and_changes_nothing() -> None:
    Path("profiles/bad.yaml").write_text("train:\n  iterations: 0\n")
    before = Path("params.yaml").read_bytes()
    broken = r"params\.yaml: train\.iterations: .*"
    message = rf"^profiles/bad\.yaml: makes this invalid: {broken}; nothing was changed$"
    with pytest.raises(UserError, match=message):
        use_profile(profile_file("bad"))
    assert Path("params.yaml").read_bytes() == before


def test_a_pipe_among_the_data_is_told_before_dvc_waits_for_its_end(folder: Path) -> None:
    (folder / "mine").mkdir()
    os.mkfifo(folder / "mine/a.jsonl")
    set_value("data.path", "mine")
    found = [str(problem) for problem in obstacles(read_settings())]
    told = "mine/a.jsonl: a pipe, socket or device"
    assert [each for each in found if told in each]
