"""The `judge` section of params.yaml."""

from typing import Literal

from pydantic import Field

from blogtune.models.params import ModelParams
from blogtune.params import Section


class JudgeParams(Section):
    kind: Literal["embedding", "ollama", "mlx"]
    model: ModelParams
    elsewhere: int = Field(ge=0)
    seed: int = Field(ge=0)
