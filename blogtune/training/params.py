"""The `train` section of params.yaml."""

from typing import Literal

from pydantic import Field, model_validator

from blogtune.params import Section


class LoraParams(Section):
    layers: int = Field(ge=1)
    rank: int = Field(ge=1)
    scale: float = Field(gt=0.0)
    dropout: float = Field(ge=0.0, lt=1.0)


class TrainParams(Section):
    seed: int = Field(ge=0)
    iterations: int = Field(ge=1)
    batch_pairs: int = Field(ge=1)
    max_sequence_tokens: int = Field(ge=16)
    evaluate_every: int = Field(ge=1)
    validation_pairs: int = Field(ge=0)
    save_every: int = Field(ge=1)
    optimizer: Literal["adam"]
    learning_rate: float = Field(gt=0.0)
    schedule: Literal["constant", "cosine"]
    warmup_iterations: int = Field(ge=0)
    lora: LoraParams

    @model_validator(mode="after")
    def _warmup_ends(self) -> "TrainParams":
        if self.warmup_iterations >= self.iterations:
            raise ValueError("warmup_iterations must be below iterations")
        return self
