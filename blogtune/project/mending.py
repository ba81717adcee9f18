"""What a kill leaves that stops every later run, and how it is mended before one.

DVC writes dvc.lock and .dvc/tmp/rwlock over what was there: stopped in it, it leaves them empty or
cut off and reads them no more. What the mended dvc.lock lacks DVC has in its run cache.
"""

import fcntl
import json
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from ruamel.yaml import YAML

from blogtune.common import pipeline
from blogtune.common.command import LOCK as STAGE_LOCK
from blogtune.common.errors import Problem, UserError
from blogtune.common.files import PARTIAL, atomic_text
from blogtune.common.params import UNREADABLE
from blogtune.project.lock import LOCK

# The last dvc.lock that could be read, renewed before each run.
GOOD = Path(".dvc/tmp/dvc.lock.good")
RWLOCK = Path(".dvc/tmp/rwlock")
# Held by a DVC that reads or writes the file above.
RWLOCK_GUARD = Path(".dvc/tmp/rwlock.lock")
MENDS = "`make repro` mends it"


def broken() -> Iterator[Problem]:
    """What of DVC's own files cannot be read."""
    if LOCK.exists() and not _is_lock(LOCK.read_bytes()):
        yield _conflict() if _in_conflict() else Problem("cannot be read", str(LOCK), MENDS)
    if RWLOCK.exists() and not _is_rwlock(RWLOCK.read_bytes()):
        yield Problem("cannot be read", str(RWLOCK), MENDS)


def mend() -> Iterator[str]:
    """Mend what is broken, tell it, and clear away what no stage finished writing.

    Raises UserError for a dvc.lock with a merge's conflicts, which are a person's to decide.
    """
    yield from _mend_lock()
    yield from _mend_rwlock()
    _clear()


def check_git() -> None:
    """Raise UserError where DVC will not run: outside git, not told that this is meant."""
    here = Path.cwd()
    if not (here / ".dvc/config").exists() or any(
        (folder / ".git").exists() for folder in (here, *here.parents)
    ):
        return
    configs = (here / ".dvc" / name for name in ("config", "config.local"))
    told = "".join(file.read_text(encoding="utf-8") for file in configs if file.exists())
    if "no_scm" not in told:
        raise UserError(
            "no git repository, which DVC needs",
            where=here,
            remedy="clone it, or `git init`; or run `.venv/bin/dvc config --local core.no_scm "
            "true`: then there is no `make diff`",
        )


def _mend_lock() -> Iterator[str]:
    content = _read(LOCK)
    if content and content == _read(GOOD):
        return
    if _is_lock(content):
        _write(GOOD, content)
    elif LOCK.exists():
        if _in_conflict():
            raise _conflict_error()
        for source, read in _copies().items():
            if _is_lock(copy := read()):
                _write(LOCK, copy)
                yield f"{LOCK} was cut off by a stop while DVC wrote it; mended from {source}"
                return
        LOCK.unlink()
        yield f"{LOCK} was cut off by a stop while DVC wrote it; DVC will write another"


def _copies() -> dict[str, Callable[[], bytes]]:
    """Where a whole one may be, the newest first."""
    return {"its last good copy": lambda: _read(GOOD), "git": _committed}


def _committed() -> bytes:
    git = shutil.which("git")
    if git is None:
        return b""
    show = [git, "show", f"HEAD:./{LOCK}"]
    return subprocess.run(show, capture_output=True, check=False).stdout


def _read(file: Path) -> bytes:
    return file.read_bytes() if file.exists() else b""


def _write(file: Path, content: bytes) -> None:
    with atomic_text(file) as stream:
        stream.write(content.decode("utf-8"))


def _is_lock(content: bytes) -> bool:
    """Whether DVC can read it: by DVC's own schema, of which a half is none."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(content.decode("utf-8")))
    except (*UNREADABLE, RecursionError, Invalid):
        return False
    return True


def _in_conflict() -> bool:
    return any(line.startswith(b"<<<<<<< ") for line in LOCK.read_bytes().splitlines())


def _conflict() -> Problem:
    return _conflict_error().problem


def _conflict_error() -> UserError:
    return UserError(
        "holds the conflicts of a merge",
        where=LOCK,
        remedy="take either side, `make repro` does the rest: git checkout --ours dvc.lock",
    )


def _mend_rwlock() -> Iterator[str]:
    if not RWLOCK.exists():
        return
    with _held(RWLOCK_GUARD) as alone:
        if alone and not _is_rwlock(_read(RWLOCK)):
            RWLOCK.unlink()
            yield f"{RWLOCK} was cut off by a stop while DVC wrote it; removed"


def _is_rwlock(content: bytes) -> bool:
    from dvc.rwlock import SCHEMA
    from voluptuous import Invalid

    try:
        SCHEMA(json.loads(content))
    except (ValueError, RecursionError, Invalid):
        return False
    return True


def _clear() -> None:
    """Delete what a killed stage was writing, unless one is at it."""
    with _held(STAGE_LOCK) as alone:
        for output in pipeline.outputs() if alone else ():
            for left in output.parent.glob(f".{output.name}.*{PARTIAL}"):
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)


@contextmanager
def _held(file: Path) -> Generator[bool]:
    """Hold a lock file during the block; whether nobody else does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
