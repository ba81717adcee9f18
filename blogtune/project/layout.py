"""Tables and paragraphs for a terminal and for Markdown."""

import re
import textwrap
from collections.abc import Sequence

WIDTH = 100
NOTHING = "-"
Row = Sequence[str]


def plain_table(rows: Sequence[Row]) -> str:
    """Return the rows, a rule under the first, names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    header, *lines = (_line(row, widths) for row in rows)
    rule = "-" * max(map(len, (header, *lines)))
    return "\n".join([header, rule, *lines])


def markdown_table(rows: Sequence[Row], *, figures: bool = True) -> str:
    """Return the same as Markdown; without `figures` everything stands to the left."""
    header, *others = rows
    aligned = ("---", *("---:" if figures else "---" for _ in header[1:]))
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, aligned, *others))


def wrapped(text: str) -> str:
    """Wrap at WIDTH, but never inside an interval."""
    whole = re.sub(r"\[.*?\]", lambda interval: interval[0].replace(" ", "\xa0"), text)
    return textwrap.fill(whole, WIDTH, subsequent_indent="  ").replace("\xa0", " ")


def _line(row: Row, widths: Sequence[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)])
