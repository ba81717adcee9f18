"""What DVC says of a small repository: one stage that reads a parameter."""

import subprocess
import sys
from pathlib import Path

import pytest

from blogtune.common.errors import UserError
from blogtune.project import lock

STAGE = """stages:
  one:
    cmd: echo 1 > figure
    params: [seed]
    outs: [figure]
"""


@pytest.fixture(autouse=True)
def no_analytics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a repository that forbids it DVC reports to its makers."""
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run, in whose folder the test runs."""
    monkeypatch.chdir(tmp_path)
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("[core]\n    no_scm = true\n    check_update = false\n")
    Path("dvc.yaml").write_text(STAGE)
    Path("params.yaml").write_text("seed: 7\n")
    command = [sys.executable, "-m", "dvc", "repro"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tmp_path


@pytest.mark.usefixtures("finished")
def test_a_run_is_stale_when_its_parameters_changed(capsys: pytest.CaptureFixture[str]) -> None:
    assert (lock.changes(), lock.outputs().keys()) == ([], {"figure"})
    lock.warn_if_stale()
    assert capsys.readouterr().err == ""
    Path("params.yaml").write_text("seed: 8\n")
    assert lock.changes() == ["one"]
    lock.warn_if_stale()
    assert capsys.readouterr().err == f"{lock.STALE}\n"


def test_where_dvc_fails_nothing_is_taken_for_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^dvc status: "):
        lock.changes()
    lock.warn_if_stale()
    assert capsys.readouterr().err == ""


def test_make_diff_warns_with_the_same_words() -> None:
    script = Path(__file__).parents[2] / "commands/diff.sh"
    assert f'"{lock.STALE}"' in script.read_text(encoding="utf-8")


def test_a_folder_without_git_is_told_before_dvc_refuses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no git repository, and DVC works in none else"):
        lock.check_git()
    (tmp_path / ".git").mkdir()
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    lock.check_git()
