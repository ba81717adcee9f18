"""The `baselines` section of params.yaml."""

from pydantic import Field

from blogtune.common.params import Section, Whole


class BaselineParams(Section):
    seed: Whole = Field(ge=0)
