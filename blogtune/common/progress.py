"""How far a long step has come: a bar on a terminal, elsewhere a line every half minute."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from blogtune.common.output import echo, in_one_line

# Seconds between two lines where nothing can be drawn over.
BETWEEN_LINES = 30.0
LINE = "{desc}: {n_fmt} of {total_fmt} {unit}, {elapsed} passed, {remaining} left{postfix}"


class _Lines:
    """Standard error without a terminal: what tqdm would draw over becomes lines."""

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line:
            echo(line, err=True)

    def flush(self) -> None:
        sys.stderr.flush()


def progress(
    over: Iterable[Any] | None = None,
    *,
    desc: str,
    unit: str,
    total: int | None = None,
    scaled: bool = False,
    quiet: bool = False,
) -> Any:
    """A tqdm over `over`, or one to `update`; nothing in the first two seconds, or if `quiet`."""
    drawn: dict[str, Any] = {"mininterval": 0.1, "unit": f" {unit}"}
    if not sys.stderr.isatty():
        drawn = {"mininterval": BETWEEN_LINES, "unit": unit, "file": _Lines(), "bar_format": LINE}
        # Left to tqdm it grows, and then tqdm's monitor writes lines in between.
        drawn["miniters"] = 1
    return tqdm(over, in_one_line(desc), total, delay=2, unit_scale=scaled, disable=quiet, **drawn)


def say(text: str) -> None:
    """Print a line on standard error, above the bar where there is one."""
    with tqdm.external_write_mode(file=sys.stderr):
        echo(text, err=True)


def size_text(count: float) -> str:
    """A number of bytes for people: 7.64 GB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
