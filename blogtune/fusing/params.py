"""The `fuse` section of params.yaml."""

from pydantic import Field

from blogtune.params import Section


class FuseParams(Section):
    parity_pairs: int = Field(ge=1)
    max_kl: float = Field(gt=0.0)
    min_top1_agreement: float = Field(gt=0.0, le=1.0)
