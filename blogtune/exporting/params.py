"""The `export` section of params.yaml, read by `make export` alone."""

import re
from typing import Literal

from pydantic import Field, field_validator

from blogtune.common.params import Seconds, Section
from blogtune.judging.params import Host

# [namespace/]model[:tag], as Ollama takes it for a model of one's own.
PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
NAME = re.compile(rf"({PART}/)?{PART}(:{PART})?")


class OllamaParams(Section):
    name: str
    # What Ollama 0.12.11 quantizes to.
    quantize: Literal["q8_0", "q4_K_M", "q4_K_S"] | None
    host: Host
    workers: int = Field(ge=1, le=64)
    threads: int | None = Field(ge=1, le=4_096)
    timeout_seconds: Seconds
    retries: int = Field(ge=0, le=20)

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("must be a name such as my-blog or me/my-blog:v2")
        return name


class ExportParams(Section):
    ollama: OllamaParams
    folder: Literal["gguf", "safetensors"] | None
    confidence: float = Field(gt=0.0, lt=1.0)
    margin: float = Field(gt=0.0, le=1.0)
