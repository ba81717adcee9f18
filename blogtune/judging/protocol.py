"""What every judge is asked and what it returns."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Item:
    """One thing to judge: how close is the answer to the reference, for this question?"""

    question: str
    reference: str
    answer: str


@dataclass(frozen=True)
class Verdict:
    """A similarity in [0, 1], or None and the reason why there is none.

    `beyond_question` in [-1, 1] is what an embedding judge adds; `truncated` says that the judge
    did not read all of the item.
    """

    similarity: float | None
    beyond_question: float | None = None
    truncated: bool = False
    reason: str | None = None


class Judge(Protocol):
    """A judge of answers. What it cannot score is unscored with a reason, never a guess."""

    @property
    def method(self) -> str:
        """How a similarity comes about, the same for a whole run ("cosine")."""
        ...

    def judge(self, items: Sequence[Item]) -> Iterator[Verdict]:
        """Yield one verdict for each item, in order. No item has an empty answer."""
        ...
