"""The `runtime` section of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from blogtune.common.params import Section


class RuntimeParams(Section):
    dtype: Literal["auto", "float32", "float16", "bfloat16"]
    processes: (
        Annotated[PositiveInt, Field(le=64)] | Annotated[str, Field(pattern=r"^auto$|\.json$")]
    )
