"""What a kill left of DVC's own files, and what becomes of it."""

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

from blogtune.common.errors import UserError
from blogtune.project.mending import GOOD, RWLOCK, RWLOCK_GUARD, broken, check_git, mend

ROOT = Path(__file__).parents[2]
LOCK = Path("dvc.lock")
WHOLE = """schema: '2.0'
stages:
  fetch:
    cmd: python -m stages.fetch
    deps:
    - path: blogtune/common
      hash: md5
      md5: 2b9a5a2a3b2f36a1c9b3a1fdb0d3ff4c.dir
      size: 14
      nfiles: 2
"""
# A file of .dvc/tmp as a kill left it.
CUT_RWLOCK = '{"read": {"stages/command.py": [{"pid": 3186, "cmd": "dvc repro"}], "params.yaml": [{'
BROKEN_LOCKS = {
    "empty": "",
    "cut in a list": WHOLE.partition("    - path")[0],
    "cut in a number": WHOLE.partition("14")[0],
    "cut in a key": WHOLE.replace("size: 14\n      nfiles: 2\n", "si"),
    "no schema": WHOLE.partition("\n")[2],
    "zeros": "\0" * 60,
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    Path(".dvc/tmp").mkdir(parents=True)
    Path(".dvc/config").touch()


def git(*command: str) -> None:
    identity = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")
    subprocess.run(["git", *identity, *command], check=True)


@pytest.mark.parametrize("content", BROKEN_LOCKS.values(), ids=BROKEN_LOCKS)
def test_a_lock_that_was_cut_off_comes_back_as_the_last_run_began(content: str) -> None:
    LOCK.write_text(WHOLE)
    assert list(broken()) == []
    assert list(mend()) == []
    LOCK.write_text(content)
    (told,) = map(str, broken())
    assert told == "dvc.lock: cannot be read; `make repro` mends it"
    assert list(mend()) == [
        "dvc.lock was cut off by a stop while DVC wrote it; mended from its last good copy"
    ]
    assert LOCK.read_text() == WHOLE
    assert list(mend()) == []


@pytest.mark.parametrize("copy", [None, "", WHOLE[:70]], ids=["no copy", "empty", "cut off"])
def test_without_a_good_copy_it_is_git_s(copy: str | None) -> None:
    git("init", "-q")
    LOCK.write_text(WHOLE)
    git("add", "dvc.lock")
    git("commit", "-q", "-m", "lock")
    LOCK.write_text("")
    if copy is not None:
        GOOD.write_text(copy)
    (told,) = mend()
    assert told.endswith("; mended from git")
    assert LOCK.read_text() == WHOLE


def test_where_there_is_none_the_broken_one_goes() -> None:
    LOCK.write_text("")
    (told,) = mend()
    assert told.endswith("; DVC will write another")
    assert not LOCK.exists()


def test_a_merge_s_conflicts_are_left_to_a_person() -> None:
    GOOD.write_text(WHOLE)
    conflict = WHOLE.replace("      size", "<<<<<<< HEAD\n      size")
    LOCK.write_text(conflict)
    with pytest.raises(UserError, match=r"dvc\.lock: holds the conflicts of a merge; take either"):
        list(mend())
    assert LOCK.read_text() == conflict
    (problem,) = broken()
    assert problem.what == "holds the conflicts of a merge"


@pytest.mark.parametrize(
    "content", ["", CUT_RWLOCK, "[]", '{"read": 3}', "\0" * 9], ids=["empty", "cut", "a", "b", "0"]
)
def test_a_broken_rwlock_goes_when_nobody_holds_it(content: str) -> None:
    RWLOCK.write_text(content)
    (told,) = map(str, broken())
    assert told == ".dvc/tmp/rwlock: cannot be read; `make repro` mends it"
    with RWLOCK_GUARD.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert list(mend()) == []
        assert RWLOCK.exists()
    assert list(mend()) == [
        ".dvc/tmp/rwlock was cut off by a stop while DVC wrote it; removed",
    ]
    assert not RWLOCK.exists()


def test_a_whole_rwlock_stays() -> None:
    RWLOCK.write_text('{"read": {"params.yaml": [{"pid": 1, "cmd": "dvc repro"}]}}')
    assert list(broken()) == []
    assert list(mend()) == []
    assert RWLOCK.exists()


def test_what_a_killed_stage_was_writing_is_cleared_away_and_nothing_else() -> None:
    left = [Path("data/answers/.base.jsonl.x1.partial"), Path("models/.fused.x2.partial/w")]
    kept = [Path("data/answers/base.jsonl"), Path("models/.mine.x2.partial/w")]
    for file in (*left, *kept):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    with Path(".dvc/tmp/stage.lock").open("w") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        list(mend())
        assert all(file.exists() for file in left)
    list(mend())
    assert not any(file.exists() for file in left)
    assert all(file.exists() for file in kept)


def test_a_folder_without_git_is_told_what_dvc_needs() -> None:
    with pytest.raises(UserError, match="no git repository, which DVC needs; clone it"):
        check_git()
    Path(".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    check_git()
    Path(".dvc/config.local").unlink()
    git("init", "-q")
    check_git()
