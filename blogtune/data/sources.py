"""Streams the rows of the data files, without judging what a row says.

JSONL rows stay bytes, so that a row that is no UTF-8 or no JSON is one bad row with its line and
not the end of the file. A CSV row's line is that on which it begins. Parquet is read one batch at a
time; there the row's number stands for the line.
"""

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from blogtune.common.errors import UserError
from blogtune.data.columns import AS_HERE, Columns
from blogtune.data.csv_files import csv_columns, csv_rows
from blogtune.data.files import data_files
from blogtune.data.pairs import Content
from blogtune.data.values import shown

TABLE_BATCH_ROWS = 1000
# JSON lines have no header: a column that none of the first so many has is taken for a mistake.
FIRST_LINES = 100
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


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
        with _reading(file):
            _check_encoding(file)
            _check_columns(file, reader.columns(file, columns), columns)
        rows = reader.rows(file, columns)
        empty = True
        while True:
            with _reading(file):
                found = next(rows, None)
            if found is None:
                break
            empty = False
            yield Row(file, *found)
        if empty:
            raise UserError("no rows", where=file, remedy="add some or remove the file")


def _check_encoding(file: Path) -> None:
    with file.open("rb") as start:
        if start.read(2) in UTF_16:
            raise UserError("UTF-16", where=file, remedy="save it as UTF-8")


def _check_columns(file: Path, there: list[str], columns: Columns) -> None:
    """Raise UserError where columns are found, but not those that are needed, or one twice."""
    if not there:
        return
    twice = next((name for name in there if name and there.count(name) > 1), None)
    if twice is not None:
        raise UserError(
            f"two columns are called {shown(twice)}", where=file, remedy="rename or remove one"
        )
    found = ", ".join(map(shown, filter(None, there)))
    if lacking := columns.missing(there):
        raise UserError(
            f"no column {', '.join(lacking)}, which data.columns names",
            where=file,
            remedy=f"there are {found}",
        )
    if not columns.enough(there):
        pairs = ", ".join(" and ".join(two) for two in columns.questions)
        raise UserError(
            f"no column {' or '.join(columns.talks)}, nor {pairs}; there are {found}",
            where=file,
            remedy="name yours in data.columns",
        )


def _jsonl(file: Path, _: Columns = AS_HERE) -> Iterator[tuple[int, bytes]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                yield number, text


def _jsonl_columns(file: Path, _: Columns) -> list[str]:
    names: dict[str, None] = {}
    first: list[bytes] = []
    for _number, line in islice(_jsonl(file), FIRST_LINES):
        first.append(line.strip())
        # A line that is no object is a bad row, told when it is read.
        with suppress(ValueError, RecursionError):
            row = json.loads(line)
            names.update(dict.fromkeys(row) if isinstance(row, dict) else {})
    # A line cut off is a bad row, and the next one an object.
    if (
        len(first) > 1
        and _is_open(first[0])
        and not (first[0][:1] == b"{" and _is_object(first[1]))
    ):
        raise UserError(
            "one JSON document over many lines, where each line must be one row",
            where=file,
            remedy=f"write one object a line, as `jq -c '.[]' {file.name}` does",
        )
    return list(names)


def _is_open(line: bytes) -> bool:
    """Whether the line begins an array or object that does not end on it."""
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return line[:1] in b"[{" and error.pos >= len(error.doc)
    except (ValueError, RecursionError):
        pass
    return False


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _parquet(file: Path, columns: Columns) -> Iterator[tuple[int, dict[str, object]]]:
    done = 0
    # Opened here: Arrow might take a name for an address.
    with file.open("rb") as data:
        table = import_module("pyarrow.parquet").ParquetFile(data)
        wanted = [name for name in table.schema_arrow.names if name in columns.read()]
        for batch in table.iter_batches(TABLE_BATCH_ROWS, columns=wanted):
            yield from enumerate(batch.to_pylist(), done + 1)
            done += batch.num_rows


def _parquet_columns(file: Path, _: Columns) -> list[str]:
    with file.open("rb") as data:
        # Not at the top: it takes a second to import, and most data are JSONL.
        return list(import_module("pyarrow.parquet").read_schema(data).names)


@contextmanager
def _reading(file: Path) -> Generator[None]:
    """Turn what the readers raise for a broken file into one line with its name."""
    try:
        yield
    except UnicodeDecodeError as error:
        where = _first_undecodable(file) if file.suffix.lower() == ".csv" else file
        raise UserError("not UTF-8", where=where, remedy="save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or _line(error)}", where=file) from error
    # Arrow's errors are of many kinds, ValueError and NotImplementedError among them.
    except (ValueError, ArithmeticError, LookupError, NotImplementedError, TypeError) as error:
        raise UserError(f"not readable as {file.suffix}: {_line(error)}", where=file) from error


def _first_undecodable(file: Path) -> str:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"{file}:{number}, byte {error.start + 1}"
    return str(file)


def _line(error: Exception) -> str:
    """In one line; what would not be seen, or act on a terminal, is spelled out."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


class Reader(NamedTuple):
    """How a kind of file is read: its rows one after the other, and its columns."""

    rows: Callable[[Path, Columns], Iterator[tuple[int, Content]]]
    columns: Callable[[Path, Columns], list[str]]


# The kinds of `files.KINDS`.
READERS = {
    ".jsonl": Reader(_jsonl, _jsonl_columns),
    ".csv": Reader(csv_rows, csv_columns),
    ".parquet": Reader(_parquet, _parquet_columns),
}
