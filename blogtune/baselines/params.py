"""The `baselines` section of params.yaml."""

from pydantic import Field

from blogtune.common.params import Section


class BaselineParams(Section):
    seed: int = Field(ge=0)
