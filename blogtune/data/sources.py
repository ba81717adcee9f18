"""Finds the data files and streams their rows, without judging what a row says.

JSONL rows stay bytes, so that a row that is no UTF-8 or no JSON is one bad row with its line and
not the end of the file. CSV and Parquet go through `datasets`, one batch at a time; there the
row's number stands for the line.
"""

import csv
import glob
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from blogtune.data.columns import AS_HERE, Columns
from blogtune.errors import UserError

IGNORED = {".md", ".txt"}
# The receipt of what was fetched.
RECEIPT = "source.json"
TABLE_BATCH_ROWS = 1000
# JSON lines have no header: a column that none of the first so many has is taken for a mistake.
FIRST_LINES = 100


class Row(NamedTuple):
    """One row as it stands in the file: a JSONL line's bytes, or a table's row as a mapping."""

    file: Path
    line: int
    content: bytes | Mapping[str, object]

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


def read_rows(path: Path, columns: Columns = AS_HERE) -> Iterator[Row]:
    """Yield every row of a data file, or of the data files under a folder, sorted by name.

    Blank lines in JSONL are no rows. Raises UserError for a missing path, an unknown kind of
    file, a file that cannot be read, one without a row and one without a column that was named.
    """
    for file in data_files(path):
        reader = READERS[file.suffix.lower()]
        if columns.given:
            _check_columns(file, reader, columns)
        empty = True
        for line, content in reader.rows(file, columns):
            empty = False
            yield Row(file, line, content)
        if empty:
            raise UserError(f"{file}: no rows; add some or remove the file")


def data_files(path: Path) -> list[Path]:
    """Return the data files at `path`; Markdown, text and hidden files in a folder are passed over.

    Raises UserError where there is none, and for a file of an unknown kind.
    """
    if path.is_file():
        return [_known(path)]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder; set data.path to your data")
    found = (file for file in _visible(path) if file.name != RECEIPT)
    files = [_known(file) for file in found if file.suffix.lower() not in IGNORED]
    if not files:
        raise UserError(f"{path}: no {_kinds()} file in it; set data.path to your data")
    return files


def _known(file: Path) -> Path:
    if file.suffix.lower() not in READERS:
        raise UserError(f"{file}: not a {_kinds()} file; convert it or move it out of data.path")
    return file


def _visible(folder: Path) -> list[Path]:
    """Every file below that is not hidden and not in a hidden folder."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def _unreadable(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _check_columns(file: Path, reader: "Reader", columns: Columns) -> None:
    there = reader.columns(file)
    lacking = columns.missing(there)
    if there and lacking:
        raise UserError(
            f"{file}: no column {', '.join(lacking)}, which data.columns names; there are "
            f"{', '.join(there)}"
        )


def _jsonl(file: Path, _: Columns = AS_HERE) -> Iterator[tuple[int, bytes]]:
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if text.strip():
                    yield number, text
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error


def _jsonl_columns(file: Path) -> list[str]:
    names: dict[str, None] = {}
    for _, line in islice(_jsonl(file), FIRST_LINES):
        # A line that is no object is a bad row, told when it is read.
        with suppress(ValueError, RecursionError):
            row = json.loads(line)
            names.update(dict.fromkeys(row) if isinstance(row, dict) else {})
    return list(names)


def _csv(file: Path, columns: Columns) -> Iterator[tuple[int, dict[str, object]]]:
    """Every cell is text: "NA" is no missing value here, and 7 no number."""
    with _table_errors(file):
        datasets = _datasets()
        features = datasets.Features({name: datasets.Value("string") for name in _header(file)})
        options = {"features": features, "na_filter": False, "index_col": False}
        rows = _stream("csv", file, chunksize=TABLE_BATCH_ROWS, **options)
        for number, row in enumerate(rows, 1):
            yield number, {k: _decoded(v) if k in columns.talks else v for k, v in row.items()}


def _csv_columns(file: Path) -> list[str]:
    with _table_errors(file):
        return _header(file)


def _header(file: Path) -> list[str]:
    """The column names; raise UserError where the first row has more cells than names.

    pandas would take the first column for an index and shift the others, or cut the last one off.
    """
    csv.field_size_limit(2**31 - 1)  # a post's text may be longer than the 128 KiB of the default
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = (row for row in csv.reader(lines) if row)
        names, first = next(rows, list[str]()), next(rows, list[str]())
    if len(first) > len(names):
        raise UserError(f"{file}:1: {len(first)} cells under {len(names)} column names")
    return names


def _parquet(file: Path, _: Columns) -> Iterator[tuple[int, dict[str, object]]]:
    with _table_errors(file):
        # By default a batch is a row group, which may hold the whole file.
        yield from enumerate(_stream("parquet", file, batch_size=TABLE_BATCH_ROWS), 1)


def _parquet_columns(file: Path) -> list[str]:
    with _table_errors(file):
        return list(import_module("pyarrow.parquet").read_schema(file).names)


def _stream(kind: str, file: Path, **options: Any) -> Iterable[dict[str, object]]:
    # The name is read as a pattern, and a file may well be called "posts[1].csv".
    name = glob.escape(str(file))
    return _datasets().load_dataset(kind, data_files=name, split="train", streaming=True, **options)


def _datasets() -> Any:
    # Not at the top: it takes seconds to import, and most data are JSONL.
    return import_module("datasets")


def _decoded(value: object) -> object:
    """A CSV cell can hold a conversation only as JSON; text that is none stays for the checks."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


@contextmanager
def _table_errors(file: Path) -> Generator[None]:
    """Turn what the table readers raise for a broken file into one line with its name."""
    try:
        yield
    except (OSError, ValueError, csv.Error) as error:  # pandas' and Arrow's errors are ValueErrors
        problem = " ".join(str(error).split())
        raise UserError(f"{file}: not readable as a UTF-8 table: {problem}") from error


class Reader(NamedTuple):
    """How a kind of file is read: its rows one after the other, and its columns."""

    rows: Callable[[Path, Columns], Iterator[tuple[int, bytes | Mapping[str, object]]]]
    columns: Callable[[Path], list[str]]


READERS = {
    ".jsonl": Reader(_jsonl, _jsonl_columns),
    ".csv": Reader(_csv, _csv_columns),
    ".parquet": Reader(_parquet, _parquet_columns),
}


def _kinds() -> str:
    return " or ".join(READERS)
