"""The `fuse` section of params.yaml."""

from typing import Literal

from pydantic import Field

from blogtune.common.params import Section, Whole


class FuseParams(Section):
    dtype: Literal["auto", "float16", "bfloat16", "float32"]
    dequantize: bool
    parity_pairs: Whole = Field(ge=1)
    max_kl: float = Field(gt=0.0)
    min_top1_agreement: float = Field(gt=0.0, le=1.0)
