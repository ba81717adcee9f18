"""What flows between the stages: one JSON object a line, validated on the way in.

A question/answer pair as `prepare` writes it:

    {"id": "5f0c3a9b2d417e68", "post": "https://blog.example/rank", "context": [],
     "question": "What is ...?", "answer": "The rank is ...", "facts": [],
     "messages": [{"role": "user", "content": "What is ...?"},
                  {"role": "assistant", "content": "The rank is ..."}]}

An answer as `answer` and `baselines` write it:

    {"id": "5f0c3a9b2d417e68", "post": "https://blog.example/rank", "context": [],
     "question": "What is ...?", "reference": "The rank is ...", "facts": ["8"],
     "model": "finetuned", "answer": "Rank ...", "stop": "end", "tokens": 48}

A judgement as `judge` writes it:

    {"answer": {...}, "method": "cosine", "similarity": 0.71, "partial_similarity": 0.42,
     "other_references": 0.18, "truncated": false, "reason": null,
     "facts": {"right": false, "precision": 0.5, "recall": 1.0, "f1": 0.67, "expected": ["8"],
               "missing": [], "contrary": ["16"]},
     "second": {"method": "likert logprobs", "similarity": 0.64, "reason": null}}
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    computed_field,
    model_validator,
)

from blogtune.common.errors import UserError
from blogtune.common.files import atomic_text

Score = Annotated[float, Field(ge=0.0, le=1.0)]
Cosine = Annotated[float, Field(ge=-1.0, le=1.0)]


class Record(BaseModel):
    """Base of every record: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Message(Record):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


# What was said before a question and belongs to it.
Context = tuple[Message, ...]


class Pair(Record):
    """A question with its reference answer. `post` is None where it belongs to no other pair.

    `context` is what was said before the question and belongs to it: a system text, then earlier
    questions with their answers. `facts` are the values that make an answer right, where the data
    say so ("38 beds"). `messages` say the same as a conversation, which `mlx_lm.lora --data` reads.
    """

    id: str
    post: str | None
    context: Context = ()
    question: str
    answer: str
    facts: list[str] = []

    @computed_field
    @property
    def messages(self) -> list[Message]:
        question = Message(role="user", content=self.question)
        return [*self.context, question, Message(role="assistant", content=self.answer)]

    @model_validator(mode="before")
    @classmethod
    def _without_messages(cls, values: Any) -> Any:
        """Of a file: they follow from the rest."""
        if isinstance(values, dict):
            return {name: value for name, value in values.items() if name != "messages"}
        return values


class NearDuplicate(Record):
    """A test pair and a train pair that resemble each other, by their ids."""

    test: str
    train: str
    similarity: Score


class Answer(Record):
    """One model's answer to one test question.

    `facts` are the pair's. `stop` tells why it ended: at the end token, at the token limit, or
    because it was not generated (a baseline). `tokens` counts what was generated, without the end
    token.
    """

    id: str
    post: str | None
    context: Context = ()
    question: str
    reference: str
    facts: list[str] = []
    model: str
    answer: str
    stop: Literal["end", "length", "none"]
    tokens: int


class Second(Record):
    """What a second judge said of the same answer and its own reference."""

    method: str
    similarity: Score | None
    reason: str | None


class Facts(Record):
    """Which of the `expected` values an answer says: `missing` ones, and `contrary` ones.

    `right`: none is missing, and nothing contradicts one.
    """

    right: bool
    precision: Score
    recall: Score
    f1: Score
    expected: list[str]
    missing: list[str]
    contrary: list[str]


class Judgement(Record):
    """What the judge said of an answer; without a score `similarity` is None, with `reason`.

    `partial_similarity` is what embedding judges add, `other_references`
    the mean similarity to references of other posts. `truncated`: the judge did not read it all.
    `facts` is None where the reference has no values to look for, `second` where there is no second
    judge.
    """

    answer: Answer
    method: str
    similarity: Score | None
    partial_similarity: Cosine | None
    other_references: Score | None
    truncated: bool
    reason: str | None
    facts: Facts | None = None
    second: Second | None = None


R = TypeVar("R", bound=Record)


def read_records(path: Path, kind: type[R]) -> Iterator[R]:
    """Yield the records of a JSONL file. Raises UserError that names file, line and field."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield _parse(line, kind, f"{path}:{number}")
    except FileNotFoundError as error:
        raise UserError("not found", where=path, remedy="run `dvc repro`") from error


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write the records as JSONL, whole or not at all; return how many there were."""
    count = 0
    with atomic_text(path) as file:
        for record in records:
            file.write(record.model_dump_json() + "\n")
            count += 1
    return count


def _parse(line: bytes, kind: type[R], where: str) -> R:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"])) or "line"
        raise UserError(f"{field}: {problem['msg']}", where=where) from error
