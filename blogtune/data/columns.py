"""What the columns are called in the data files: `data.columns`, completed."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

Column = Literal["question", "answer", "conversation", "messages", "post", "url", "title"]


class Columns(NamedTuple):
    """The files' names of question and answer, and in order of whole talks and of the post.

    `given` are those that stand in `data.columns`: each must be in every file.
    """

    question: str = "question"
    answer: str = "answer"
    talks: tuple[str, ...] = ("conversation", "messages")
    posts: tuple[str, ...] = ("post", "url", "title")
    given: tuple[str, ...] = ()

    def missing(self, found: Iterable[str]) -> list[str]:
        """Those given that are not among the columns found."""
        there = set(found)
        return [name for name in self.given if name not in there]

    def enough(self, found: Iterable[str]) -> bool:
        """Whether the columns found can hold a pair: a talk, or question and answer."""
        there = set(found)
        return not there.isdisjoint(self.talks) or {self.question, self.answer} <= there


AS_HERE = Columns()


def completed(renamed: Mapping[Column, str] | None) -> Columns:
    """The columns renamed, and the others as they are called here.

    A column that stands for one thing stands for nothing else: a title that is the question names
    no post.
    """
    names: dict[Column, str] = dict(renamed or {})
    taken = set(names.values())

    def called(*ours: Column) -> tuple[str, ...]:
        return tuple(names.get(each, each) for each in ours if each in names or each not in taken)

    return Columns(
        question=names.get("question", "question"),
        answer=names.get("answer", "answer"),
        talks=called("conversation", "messages"),
        posts=called("post", "url", "title"),
        given=tuple(names.values()),
    )
