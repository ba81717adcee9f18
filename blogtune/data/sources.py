"""Finds the data files and streams their rows, without judging what a row says.

JSONL rows stay bytes, so that a row that is no UTF-8 or no JSON is one bad row with its line and
not the end of the file. A CSV row's line is that on which it begins. Parquet goes through
`datasets`, one batch at a time; there the row's number stands for the line.
"""

import csv
import glob
import json
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from blogtune.common.errors import UserError
from blogtune.data.columns import AS_HERE, Columns
from blogtune.data.pairs import BadRowError, Content

IGNORED = {".md", ".txt"}
# The receipt of what was fetched.
RECEIPT = "source.json"
TABLE_BATCH_ROWS = 1000
# JSON lines have no header: a column that none of the first so many has is taken for a mistake.
FIRST_LINES = 100
# A file without a header has whole texts for names.
NAME_CHARACTERS = 40
OTHER_SEPARATORS = (";", "\t")
# Put behind a CSV file's last line: inside quotes that are never closed it ends up in a cell.
END = "\x1fend of file"


class Row(NamedTuple):
    """One row as it stands in the file: a JSONL line's bytes, or a table's row as a mapping."""

    file: Path
    line: int
    content: Content

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


def read_rows(path: Path, columns: Columns = AS_HERE) -> Iterator[Row]:
    """Yield every row of a data file, or of the data files under a folder, sorted by name.

    Blank lines in JSONL and CSV are no rows. Raises UserError for a missing path, an unknown kind
    of file, a file that cannot be read, one without a row and one without the columns that are
    needed or were named.
    """
    for file in data_files(path):
        reader = READERS[file.suffix.lower()]
        _check_columns(file, reader.columns(file), columns)
        empty = True
        for line, content in reader.rows(file, columns):
            empty = False
            yield Row(file, line, content)
        if empty:
            raise UserError("no rows", where=file, remedy="add some or remove the file")


def data_files(path: Path) -> list[Path]:
    """Return the data files at `path`; Markdown, text and hidden files in a folder are passed over.

    Raises UserError where there is none, and for a file of an unknown kind.
    """
    if path.is_file():
        return [_known(path)]
    if not path.is_dir():
        raise UserError("no such file or folder", where=path, remedy="set data.path to your data")
    found = (file for file in _visible(path) if file.name != RECEIPT)
    files = [_known(file) for file in found if file.suffix.lower() not in IGNORED]
    if not files:
        raise UserError(
            f"no {_kinds()} file in it", where=path, remedy="set data.path to your data"
        )
    return files


def _known(file: Path) -> Path:
    if file.suffix.lower() not in READERS:
        raise UserError(
            f"not a {_kinds()} file", where=file, remedy="convert it or move it out of data.path"
        )
    return file


def _visible(folder: Path) -> list[Path]:
    """Every file below that is not hidden and not in a hidden folder."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def _unreadable(error: OSError) -> None:
    raise UserError(f"cannot be read: {error.strerror}", where=error.filename) from error


def _check_columns(file: Path, there: list[str], columns: Columns) -> None:
    """Raise UserError where columns are found, but not those that are needed, or one twice."""
    if not there:
        return
    twice = next((name for name in there if name and there.count(name) > 1), None)
    if twice is not None:
        raise UserError(
            f"two columns are called {twice}", where=file, remedy="rename or remove one"
        )
    found = ", ".join(map(_shown, filter(None, there)))
    if lacking := columns.missing(there):
        raise UserError(
            f"no column {', '.join(lacking)}, which data.columns names",
            where=file,
            remedy=f"there are {found}",
        )
    if not columns.enough(there):
        raise UserError(
            f"no column {' or '.join(columns.talks)}, nor {columns.question} and "
            f"{columns.answer}; there are {found}",
            where=file,
            remedy="name yours in data.columns",
        )


def _shown(name: str) -> str:
    """A column's name for a message, in quotes where its ends would not be seen."""
    shown = name[:NAME_CHARACTERS]
    return shown if shown == shown.strip() and shown.isprintable() else repr(shown)


def _jsonl(file: Path, _: Columns = AS_HERE) -> Iterator[tuple[int, bytes]]:
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if text.strip():
                    yield number, text
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=file) from error


def _jsonl_columns(file: Path) -> list[str]:
    names: dict[str, None] = {}
    for _, line in islice(_jsonl(file), FIRST_LINES):
        # A line that is no object is a bad row, told when it is read.
        with suppress(ValueError, RecursionError):
            row = json.loads(line)
            names.update(dict.fromkeys(row) if isinstance(row, dict) else {})
    return list(names)


def _csv(file: Path, columns: Columns) -> Iterator[tuple[int, Content]]:
    """Every cell is text: "NA" is no missing value here, and 7 no number; a missing one is ""."""
    with _table_errors(file):
        records = _records(file)
        _, names = next(records, (0, list[str]()))
        for line, cells in records:
            if len(cells) > len(names):
                told = f"{len(cells)} cells under {len(names)} column names"
                yield line, BadRowError("unknown_schema", told)
                continue
            row = dict.fromkeys(names, "") | dict(zip(names, cells, strict=False))
            lists = {*columns.talks, "facts"}
            yield line, {k: _decoded(v) if k in lists else v for k, v in row.items()}


def _csv_columns(file: Path) -> list[str]:
    with _table_errors(file):
        _, names = next(_records(file), (0, list[str]()))
    if len(names) == 1 and (found := [each for each in OTHER_SEPARATORS if each in names[0]]):
        raise UserError(
            f"its columns are separated by {found[0]!r}", where=file, remedy="it must be a comma"
        )
    return names


def _records(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines' cells, each record with the line on which it begins; blank lines are none."""
    csv.field_size_limit(2**31 - 1)  # a post's text may be longer than the 128 KiB of the default
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(chain(lines, [END]))
        line = 1
        for cells in reader:
            if cells and cells[-1].endswith(END) and cells != [END]:
                raise UserError("a quote in this row is never closed", where=f"{file}:{line}")
            if cells and cells != [END]:
                yield line, cells
            line = reader.line_num + 1


def _parquet(file: Path, _: Columns) -> Iterator[tuple[int, dict[str, object]]]:
    with _table_errors(file):
        # Not at the top: it takes seconds to import, and most data are JSONL.
        rows = import_module("datasets").load_dataset(
            "parquet",
            # A name is read as a pattern, and a file may well be called "posts[1].parquet".
            data_files=glob.escape(str(file)),
            split="train",
            streaming=True,
            # By default a batch is a row group, which may hold the whole file.
            batch_size=TABLE_BATCH_ROWS,
        )
        yield from enumerate(rows, 1)


def _parquet_columns(file: Path) -> list[str]:
    with _table_errors(file):
        return list(import_module("pyarrow.parquet").read_schema(file).names)


def _decoded(cell: str) -> object:
    """A CSV cell can hold a list only as JSON; text that is none stays for the checks."""
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell


@contextmanager
def _table_errors(file: Path) -> Generator[None]:
    """Turn what the table readers raise for a broken file into one line with its name."""
    try:
        yield
    except (OSError, ValueError, csv.Error) as error:  # Arrow's errors are ValueErrors
        problem = " ".join(str(error).split())
        raise UserError(f"not readable as a UTF-8 table: {problem}", where=file) from error


class Reader(NamedTuple):
    """How a kind of file is read: its rows one after the other, and its columns."""

    rows: Callable[[Path, Columns], Iterator[tuple[int, Content]]]
    columns: Callable[[Path], list[str]]


READERS = {
    ".jsonl": Reader(_jsonl, _jsonl_columns),
    ".csv": Reader(_csv, _csv_columns),
    ".parquet": Reader(_parquet, _parquet_columns),
}


def _kinds() -> str:
    return " or ".join(READERS)
