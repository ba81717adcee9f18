"""The `judge` section of params.yaml: one judge, perhaps a second, and the test of the first."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from blogtune.common.params import Seconds, Section, Whole
from blogtune.common.sources import JudgeModelParams


def _null_or_url(host: str | None) -> str | None:
    if host is not None and not _is_url(host):
        raise ValueError("must be null or a URL such as http://127.0.0.1:11434")
    if host is not None and "@" in urlsplit(host).netloc:
        raise ValueError("must hold no user and password, which dvc.lock would keep")
    return host


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    plain = text.isascii() and text.isprintable() and " " not in text
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0


# Of an Ollama server; null: where its client looks.
Host = Annotated[str | None, AfterValidator(_null_or_url)]


class OneJudge(Section):
    kind: Literal["embedding", "ollama", "mlx"]
    model: JudgeModelParams
    scale: Literal["likert", "unit"]
    host: Host
    pull: bool
    # More connections than httpx keeps in its pool would only wait for one another.
    workers: int = Field(ge=1, le=64)
    timeout_seconds: Seconds
    retries: int = Field(ge=0, le=20)
    batch_items: int = Field(ge=1, le=100_000)

    @model_validator(mode="after")
    def _fits_its_model(self) -> "OneJudge":
        if (self.kind == "ollama") != (self.model.scheme == "ollama"):
            raise ValueError(
                f"kind {self.kind} cannot use model.source {self.model.source}; "
                "ollama:<name> goes with kind ollama, every other source with the other kinds"
            )
        if self.kind == "mlx" and self.scale == "unit":
            raise ValueError("scale unit needs kind ollama; mlx reads the digits of likert")
        return self


class CheckParams(Section):
    items: Whole = Field(ge=1)
    seed: Whole = Field(ge=0)
    paraphrases: str
    min_right: Whole = Field(ge=1)
    min_auc: float = Field(ge=0.0, le=1.0)
    max_unscored: float = Field(ge=0.0, le=1.0)
    min_retest_agreement: float = Field(ge=0.0, le=1.0)
    min_drop: float = Field(ge=0.0, le=1.0)
    max_instruction_gain: float = Field(ge=0.0, le=1.0)


class JudgeParams(OneJudge):
    other_references: Whole = Field(ge=0)
    seed: Whole = Field(ge=0)
    min_coverage: float = Field(ge=0.0, le=1.0)
    second: OneJudge | None
    check: CheckParams
