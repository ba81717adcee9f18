"""The `probe` section of params.yaml."""

from pydantic import Field

from blogtune.common.params import Section, Whole


class ProbeParams(Section):
    seed: Whole = Field(ge=0)
    distractors: int = Field(ge=1, le=100)
