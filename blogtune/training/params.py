"""The `train` section of params.yaml."""

from typing import Literal

from pydantic import Field, model_validator

from blogtune.common.params import Section, Whole


class LoraParams(Section):
    kind: Literal["lora", "dora"]
    layers: int = Field(ge=1, le=10_000)
    targets: Literal["qkv", "all"] | list[str]
    rank: int = Field(ge=1, le=65_536)
    scale: float = Field(gt=0.0)
    dropout: float = Field(ge=0.0, lt=1.0)


class TrainParams(Section):
    seed: Whole = Field(ge=0)
    iterations: Whole = Field(ge=1)
    batch_pairs: int = Field(ge=1, le=1_000_000)
    accumulate_batches: Whole = Field(ge=1)
    max_sequence_tokens: int = Field(ge=16, le=1_000_000)
    evaluate_every: Whole = Field(ge=1)
    validation_pairs: Whole = Field(ge=0)
    patience: Whole | None = Field(ge=1)
    save_every: Whole = Field(ge=1)
    keep_checkpoints: Whole = Field(ge=1)
    optimizer: Literal["adam", "adamw"]
    weight_decay: float = Field(ge=0.0)
    learning_rate: float = Field(gt=0.0)
    schedule: Literal["constant", "cosine"]
    warmup_iterations: Whole = Field(ge=0)
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
