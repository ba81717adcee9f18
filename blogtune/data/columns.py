"""What the columns are called in the data files: `data.columns`, completed."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

Column = Literal["question", "answer", "input", "conversation", "messages", "post", "url", "title"]

# Columns of a question and its answer: ours, mlx-lm's and Alpaca's.
USUAL = (("question", "answer"), ("prompt", "completion"), ("instruction", "output"))
ALPACA = "instruction"
SHAREGPT = "conversations"
SYSTEM = "system"


class Columns(NamedTuple):
    """The files' names of question and answer, and in order of whole talks and of the post.

    `given` are those that stand in `data.columns`: each must be in every file. `input` is what a
    question is about; it is read where it is given, and beside Alpaca's instruction.
    """

    questions: tuple[tuple[str, str], ...] = USUAL
    input: str = "input"
    talks: tuple[str, ...] = ("conversation", "messages", SHAREGPT)
    posts: tuple[str, ...] = ("post", "url", "title")
    given: tuple[str, ...] = ()

    def missing(self, found: Iterable[str]) -> list[str]:
        """Those given that are not among the columns found."""
        there = set(found)
        return [name for name in self.given if name not in there]

    def enough(self, found: Iterable[str]) -> bool:
        """Whether the columns found can hold a pair: a talk, or question and answer."""
        there = set(found)
        return not there.isdisjoint(self.talks) or any(there >= set(two) for two in self.questions)

    def has_input(self, question: str) -> bool:
        """Whether a question of that column may go on in the column `input`."""
        return question == ALPACA or self.input in self.given

    def read(self) -> set[str]:
        """Every column that is read where it is there."""
        pairs = {name for two in self.questions for name in two}
        return {*pairs, self.input, "facts", SYSTEM, *self.talks, *self.posts, *self.given}


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

    own = (names.get("question", "question"), names.get("answer", "answer"))
    usual = () if {"question", "answer"} & set(names) else USUAL[1:]
    return Columns(
        questions=(own, *(two for two in usual if taken.isdisjoint(two))),
        input=names.get("input", "input"),
        talks=(*called("conversation", "messages"), *({SHAREGPT} - taken)),
        posts=called("post", "url", "title"),
        given=tuple(names.values()),
    )
