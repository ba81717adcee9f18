"""The one exception that a person is meant to read.

Everything a user can mend raises `UserError`: what is wrong, where, what to do. Here and nowhere
else these become one line; the stages print it and exit with status 1, `--debug` prints the
traceback as well. Any other exception is a defect of ours and keeps its traceback.
"""

from dataclasses import dataclass
from pathlib import Path

from blogtune.common.output import in_one_line


@dataclass(frozen=True)
class Problem:
    """What is wrong, with what file or key, and what a person can do about it."""

    what: str
    where: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        """Such as "params.yaml: train.rate: unknown key; remove it"."""
        where = f"{self.where}: " if self.where else ""
        return in_one_line(f"{where}{self.what}{f'; {self.remedy}' if self.remedy else ''}")


class UserError(Exception):
    """A problem with the input, the parameters or the machine."""

    def __init__(self, what: str, *, where: str | Path = "", remedy: str = "") -> None:
        self.problem = Problem(what, str(where), remedy)
        super().__init__(str(self.problem))
