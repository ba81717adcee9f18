"""What every judge is asked and what it returns."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from blogtune.common.records import Context


@dataclass(frozen=True)
class Item:
    """One thing to judge: how close is the answer to the reference, for this question?

    `context` is what was said before the question.
    """

    question: str
    reference: str
    answer: str
    context: Context = ()


@dataclass(frozen=True)
class Verdict:
    """A similarity in [0, 1], or None and the reason why there is none.

    `partial_similarity` in [-1, 1] is what an embedding judge adds; `truncated` says that the judge
    did not read all of the item, `server_failed` that there is no score because of its server.
    """

    similarity: float | None
    partial_similarity: float | None = None
    truncated: bool = False
    reason: str | None = None
    server_failed: bool = False


class Judge(Protocol):
    """A judge of answers. What it cannot score is unscored with a reason, never a guess."""

    @property
    def method(self) -> str:
        """How a similarity comes about, the same for a whole run ("cosine")."""
        ...

    def judge(self, items: Sequence[Item]) -> Iterator[Verdict]:
        """Yield one verdict for each item, in order. No item has an empty answer."""
        ...


class LanguageJudge(Judge, Protocol):
    """A judge that asks a language model, which takes time: its verdicts are worth keeping."""

    @property
    def identity(self) -> Mapping[str, object]:
        """All that makes a verdict, except item and method: model, prompt, options."""
        ...

    def ask(self, items: Sequence[Item]) -> Generator[tuple[int, Verdict]]:
        """Yield (index of the item, its verdict) as they are done, in any order."""
        ...


def in_order(numbered: Iterable[tuple[int, Verdict]]) -> Iterator[Verdict]:
    """Put the verdicts 0, 1, 2, ... that come in any order into this one."""
    waiting: dict[int, Verdict] = {}
    following = 0
    for index, verdict in numbered:
        waiting[index] = verdict
        while following in waiting:
            yield waiting.pop(following)
            following += 1
