"""The `answer` section of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from blogtune.common.params import Section


class AnswerParams(Section):
    split: Literal["valid", "test"]
    max_tokens: int = Field(ge=1, le=1_000_000)
    batch_questions: Annotated[int, Field(ge=1, le=100_000)] | Literal["auto"]
