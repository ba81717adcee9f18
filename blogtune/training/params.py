"""The `train` section of params.yaml."""

from typing import Literal

from pydantic import Field, model_validator

from blogtune.common.params import Section


class LoraParams(Section):
    kind: Literal["lora", "dora"]
    layers: int = Field(ge=1)
    targets: Literal["qkv", "all"] | list[str]
    rank: int = Field(ge=1)
    scale: float = Field(gt=0.0)
    dropout: float = Field(ge=0.0, lt=1.0)


class TrainParams(Section):
    seed: int = Field(ge=0)
    iterations: int = Field(ge=1)
    batch_pairs: int = Field(ge=1)
    accumulate_batches: int = Field(ge=1)
    max_sequence_tokens: int = Field(ge=16)
    evaluate_every: int = Field(ge=1)
    validation_pairs: int = Field(ge=0)
    patience: int | None = Field(ge=1)
    save_every: int = Field(ge=1)
    keep_checkpoints: int = Field(ge=1)
    optimizer: Literal["adam", "adamw"]
    weight_decay: float = Field(ge=0.0)
    learning_rate: float = Field(gt=0.0)
    schedule: Literal["constant", "cosine"]
    warmup_iterations: int = Field(ge=0)
    clip_norm: float | None = Field(gt=0.0)
    gradient_checkpointing: bool
    activation_cache: Literal["auto", "memory", "disk", "off"]
    lora: LoraParams

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainParams":
        if self.warmup_iterations >= self.iterations:
            raise ValueError("warmup_iterations must be below iterations")
        if self.weight_decay > 0 and self.optimizer == "adam":
            raise ValueError("weight_decay is for optimizer: adamw; set it to 0.0")
        return self
