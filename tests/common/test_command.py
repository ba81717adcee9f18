import os
import sys
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
