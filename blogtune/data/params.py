"""The `data` section of params.yaml."""

from pathlib import PurePath
from typing import Literal

from pydantic import Field, field_validator, model_validator

from blogtune.common.params import Section, Whole
from blogtune.common.sources import DatasetParams
from blogtune.data.columns import Column

# Where a data set of the hub is brought.
FETCHED = PurePath("data/fetched")


class SplitParams(Section):
    by: Literal["pair", "post"]
    train: float = Field(gt=0.0, lt=1.0)
    validation: float = Field(gt=0.0, lt=1.0)
    test: float = Field(gt=0.0, lt=1.0)
    seed: Whole = Field(ge=0)

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
    fetch: DatasetParams
    columns: dict[Column, str] | None
    context_turns: Whole = Field(ge=0, le=1000)
    max_bad_rows: Whole = Field(ge=0)
    split: SplitParams
    near_duplicates: NearDuplicateParams

    @field_validator("path")
    @classmethod
    def _names_a_path(cls, path: str) -> str:
        if not path.strip():
            raise ValueError("empty; name a file or folder")
        return path

    @model_validator(mode="after")
    def _reads_what_is_fetched(self) -> "DataParams":
        inside = PurePath(self.path).is_relative_to(FETCHED)
        if self.fetch.source is not None and not inside:
            raise ValueError(f"fetch names a data set, so path must be {FETCHED}")
        if self.fetch.source is None and inside:
            raise ValueError(f"path is {FETCHED}, but fetch names no data set to bring there")
        return self
