"""The `compare` section of params.yaml."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from blogtune.common.params import Section, Whole

Model = Literal["base", "finetuned", "fused"]


class CompareParams(Section):
    candidate: Model
    good: float = Field(gt=0.0, lt=1.0)
    poor: float = Field(gt=0.0, lt=1.0)
    confidence: float = Field(gt=0.5, lt=1.0)
    min_posts: Whole = Field(ge=3)
    examples: Whole = Field(ge=1)

    @field_validator("poor")
    @classmethod
    def _below_good(cls, poor: float, info: ValidationInfo) -> float:
        if poor >= info.data.get("good", 1.0):
            raise ValueError("must be below compare.good")
        return poor
