"""The `runtime` section of params.yaml."""

from typing import Literal

from blogtune.params import Section


class RuntimeParams(Section):
    dtype: Literal["auto", "float32", "float16", "bfloat16"]
