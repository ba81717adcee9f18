import os
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from blogtune.common.command import LOCK, Run, stage


def test_the_lock_names_the_stage_at_work_and_no_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test_command", "base"])
    LOCK.parent.mkdir(parents=True)
    LOCK.write_text("answer finetuned, process 123456789")
    told: list[str] = []

    @click.command()
    @stage
    def main(run: Run) -> None:
        assert run.sections == {}
        told.append(LOCK.read_text())

    assert CliRunner().invoke(main, []).exit_code == 0
    assert told == [f"test_command base, process {os.getpid()}"]


def remove(file: Path) -> None:
    file.unlink()


def rewrite(file: Path) -> None:
    file.write_text("two")


CHANGES = {
    "written over": ("data/in.jsonl", rewrite),
    "removed": ("data/in.jsonl", remove),
    "new in a folder": ("models/base/new", rewrite),
    "changed in a folder": ("models/base/inner/weights", rewrite),
}


@pytest.mark.parametrize(("name", "change"), CHANGES.values(), ids=CHANGES)
def test_an_input_that_changes_meanwhile_stops_the_stage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    change: Callable[[Path], None],
) -> None:
    """DVC recorded it as what the output was made of, and said that all was up to date."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test_command", "base", "--debug"])
    for file in ("data/in.jsonl", "models/base/inner/weights", "data/other"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("one")
    (tmp_path / "params.yaml").write_text("answer: {in: in}")
    (tmp_path / "dvc.yaml").write_text(
        """stages:
  test_command:
    foreach: {base: {weights: models/base}, other: {weights: data/other}}
    do: {deps: ["${item.weights}", "data/${answer.in}.jsonl", blogtune/common], outs: [out]}
"""
    )
    changed = [name, "data/other"]

    @click.command()
    @stage
    def main(_: Run) -> None:
        for each in changed:
            change(tmp_path / each)

    result = CliRunner().invoke(main, [])
    assert result.exit_code == 1
    assert result.stderr == f"error: {name}: changed while this stage ran; run it again\n"
    changed.clear()
    assert CliRunner().invoke(main, []).exit_code == 0
