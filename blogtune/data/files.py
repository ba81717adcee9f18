"""Which files `data.path` names, and whether they are already split into parts."""

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from blogtune.common.errors import UserError
from blogtune.data.split import TEST, TRAIN, VALIDATION

KINDS = (".jsonl", ".csv", ".parquet")
IGNORED = {".md", ".txt"}
# The receipt of what was fetched.
RECEIPT = "source.json"
PARTS = {
    "train": TRAIN,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
}
# "train", and as the hub has it "train-00000-of-00002".
_PART = re.compile(rf"({'|'.join(PARTS)})([-_.]?\d.*)?", re.IGNORECASE)


def data_files(path: Path) -> list[Path]:
    """Return the data files at `path`; Markdown, text and hidden files in a folder are passed over.

    Raises UserError where there is none, for a file of an unknown kind and for one that is no
    regular file, such as a pipe, which would be waited for without end.
    """
    if not path.exists():
        raise UserError("no such file or folder", where=path, remedy="set data.path to your data")
    if not path.is_dir():
        return [_known(path)]
    found = (file for file in _visible(path) if file.name != RECEIPT)
    files = [_known(file) for file in found if file.suffix.lower() not in IGNORED]
    if not files:
        raise UserError(f"no {kinds()} file in it", where=path, remedy="set data.path to your data")
    return files


def own_split(files: Sequence[Path]) -> Mapping[Path, int]:
    """The part that each file is by its name, as mlx-lm reads train, valid and test.jsonl.

    Empty unless there are training files and others beside them. Raises UserError where such files
    lie beside one of another name: it could belong to any part.
    """
    named = {
        file: PARTS[match[1].lower()] for file in files if (match := _PART.fullmatch(file.stem))
    }
    if TRAIN not in named.values() or len(set(named.values())) < 2:
        return {}
    other = next((file for file in files if file not in named), None)
    if other is not None:
        names = ", ".join(file.name for file in named)
        raise UserError(
            f"of no part, beside the parts {names}",
            where=other,
            remedy="move it out of data.path, or name it train-2 or the like",
        )
    return named


def special_files(path: Path) -> Iterator[Path]:
    """Pipes, sockets and devices at `path` or in it: to read one may never end."""
    if path.is_dir():
        for folder, _, names in os.walk(path):
            yield from (file for name in names if is_special(file := Path(folder, name)))
    elif is_special(path):
        yield path


def is_special(file: Path) -> bool:
    try:
        mode = file.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def kinds() -> str:
    return " or ".join(KINDS)


def _known(file: Path) -> Path:
    if file.suffix.lower() not in KINDS:
        raise UserError(
            f"not a {kinds()} file", where=file, remedy="convert it or move it out of data.path"
        )
    if is_special(file):
        raise UserError(
            "a pipe, socket or device and no file", where=file, remedy="save its data to a file"
        )
    return file


def _visible(folder: Path) -> list[Path]:
    """Every file below that is not hidden and not in a hidden folder."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            # DVC does not look into it, so a change there would go unseen.
            if (link := Path(parent, name)).is_symlink():
                raise UserError(
                    "a link to a folder, whose files DVC does not see",
                    where=link,
                    remedy="put the folder itself there, or set data.path to it",
                )
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def _unreadable(error: OSError) -> None:
    raise UserError(f"cannot be read: {error.strerror}", where=error.filename) from error
