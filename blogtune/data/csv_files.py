"""CSV files: which sign separates the cells, and the rows with the lines on which they begin.

Cells are separated as RFC 4180 has it, by a comma, or by one of the other usual signs; a first line
`sep=;` as Excel writes it is read. A quote that RFC 4180 does not allow stops the run: what follows
could be anything.
"""

import csv
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from blogtune.common.errors import UserError
from blogtune.data.columns import Columns
from blogtune.data.pairs import Content
from blogtune.data.values import BadRowError, shown

SEPARATORS = (",", ";", "\t", "|")
_SEP_LINE = re.compile(r'"?sep=(.?)"?\s*', re.IGNORECASE)


class _Layout(NamedTuple):
    """The sign between the cells, how many lines stand before the header, and its names."""

    separator: str
    skipped: int
    names: list[str]


def csv_rows(file: Path, columns: Columns) -> Iterator[tuple[int, Content]]:
    """Every cell is text: "NA" is no missing value here, and 7 no number; a missing one is ""."""
    layout = _layout(file, columns)
    names = layout.names
    for line, cells in islice(_records(file, layout.separator, layout.skipped), 1, None):
        if len(cells) > len(names):
            told = f"{len(cells)} cells under {len(names)} column names"
            yield line, BadRowError("unknown_schema", told)
            continue
        row = dict.fromkeys(names, "") | dict(zip(names, cells, strict=False))
        lists = {*columns.talks, "facts"}
        yield line, {k: _decoded(v) if k in lists else v for k, v in row.items()}


def csv_columns(file: Path, columns: Columns) -> list[str]:
    return _layout(file, columns).names


def _layout(file: Path, columns: Columns) -> _Layout:
    """The first separator by which the header has the columns needed; else that of most names."""
    with file.open(encoding="utf-8-sig", newline="") as lines:
        sep_line = _SEP_LINE.fullmatch(lines.readline())
    if sep_line:
        if sep_line[1] not in SEPARATORS:
            raise UserError(
                f"no separator that is read here: {shown(sep_line[1])!r}",
                where=f"{file}:1",
                remedy="separate the cells by commas",
            )
        return _Layout(sep_line[1], 1, _header(file, sep_line[1], 1))
    found: list[_Layout] = []
    for separator in SEPARATORS:
        # By another sign than the file's a header can have quotes inside its cells.
        with suppress(UserError):
            found.append(_Layout(separator, 0, _header(file, separator, 0)))
    if not found:
        _header(file, ",", 0)
    usable = (one for one in found if columns.enough(one.names) and not columns.missing(one.names))
    return next(usable, max(found, key=lambda one: _likelihood(file, one)))


def _header(file: Path, separator: str, skipped: int) -> list[str]:
    _, names = next(_records(file, separator, skipped), (0, list[str]()))
    return names


def _likelihood(file: Path, layout: _Layout) -> tuple[bool, int]:
    """Whether the first row has as many cells as there are names, and how many names."""
    names = len(layout.names)
    try:
        cells = [len(cells) for _, cells in islice(_records(file, layout.separator, 0), 1, 2)]
    except UserError:
        return False, names
    return names > 1 and cells == [names], names


def _records(file: Path, separator: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """The lines' cells, each record with the line on which it begins; blank lines are none."""
    csv.field_size_limit(2**31 - 1)  # a post's text may be longer than the 128 KiB of the default
    with file.open(encoding="utf-8-sig", newline="") as lines:
        for _ in range(skipped):
            lines.readline()
        reader = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)
        while True:
            line = skipped + reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise _misquoted(error, f"{file}:{line}") from error
            if cells is None:
                return
            if cells:
                yield line, cells


def _misquoted(error: csv.Error, where: str) -> UserError:
    if "unexpected end of data" in str(error):
        return UserError("a quote in this row is never closed", where=where)
    if "expected after" in str(error):
        return UserError(
            "text stands behind a closing quote in this row",
            where=where,
            remedy='write a quote inside a cell as ""',
        )
    return UserError(f"not readable as CSV: {error}", where=where)


def _decoded(cell: str) -> object:
    """A CSV cell can hold a conversation only as JSON; text that is none stays for the checks."""
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell
