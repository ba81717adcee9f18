"""Files and folders that are written whole or not at all, a power cut included.

What is written lies beside its place under a name that ends in `PARTIAL`, is synced, and then takes
the place. A kill leaves that name behind; `commands/preflight.py` clears it away.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

# Also in .dvcignore and .gitignore: what a kill leaves in a folder is none of its files.
PARTIAL = ".partial"


@contextmanager
def atomic_text(path: Path) -> Generator[IO[str]]:
    """Open a UTF-8 file that replaces `path` when the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(PARTIAL, f".{path.name}.", path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            _sync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
        _sync_path(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: Path) -> Generator[Path]:
    """Yield a folder that takes the place of `path` when the block ends without an exception.

    MLX's RuntimeError for a write that failed leaves as the OSError that it is: a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(PARTIAL, f".{path.name}.", path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        for each in (*temporary.rglob("*"), temporary):
            _sync_path(each)
        shutil.rmtree(path, ignore_errors=True)
        temporary.replace(path)
        _sync_path(path.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, RuntimeError) and "Unable to write" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def _sync_path(path: Path) -> None:
    """Sync a file, or a folder's names; a folder's own files are not synced with it."""
    if not (path.is_file() or path.is_dir()):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        _sync(handle)
    finally:
        os.close(handle)


def _sync(handle: int) -> None:
    """Return when it is on the disk: macOS's fsync leaves it in the drive's own memory."""
    full: int | None = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        with suppress(OSError):  # as of a network drive, which knows no such thing
            fcntl.fcntl(handle, full)
            return
    os.fsync(handle)


def sha256(path: Path) -> str:
    """The file's digest; it is read in parts, since it may be larger than the memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` as indented JSON, keys in the order given.

    Raises ValueError for NaN and infinity, which are not JSON.
    """
    with atomic_text(path) as file:
        json.dump(values, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")
