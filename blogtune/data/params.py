"""The `data` section of params.yaml."""

from typing import Literal

from pydantic import Field, model_validator

from blogtune.params import Section


class SplitParams(Section):
    by: Literal["pair", "post"]
    train: float = Field(gt=0.0, lt=1.0)
    validation: float = Field(gt=0.0, lt=1.0)
    test: float = Field(gt=0.0, lt=1.0)
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _shares_add_up(self) -> "SplitParams":
        if abs(self.train + self.validation + self.test - 1.0) > 1e-9:
            raise ValueError("train, validation and test must add up to 1")
        return self


class NearDuplicateParams(Section):
    method: Literal["jaccard"]
    shingle_words: int = Field(ge=1, le=10)
    limit: float = Field(gt=0.0, le=1.0)


class DataParams(Section):
    path: str
    max_bad_rows: int = Field(ge=0)
    split: SplitParams
    near_duplicates: NearDuplicateParams
