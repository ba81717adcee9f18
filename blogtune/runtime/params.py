"""The `runtime` section of params.yaml."""

from typing import Literal

from pydantic import PositiveInt

from blogtune.params import Section


class RuntimeParams(Section):
    dtype: Literal["auto", "float32", "float16", "bfloat16"]
    processes: PositiveInt | Literal["auto"]
