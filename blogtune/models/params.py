"""The `model` section of params.yaml, and `judge.model`, which has the same shape."""

from pydantic import model_validator

from blogtune.params import Section

SCHEMES = ("package", "path", "hub")


class ModelParams(Section):
    source: str
    revision: str | None

    @model_validator(mode="after")
    def _has_a_scheme(self) -> "ModelParams":
        scheme, separator, rest = self.source.partition(":")
        if not separator or not rest or scheme not in (*SCHEMES, "ollama"):
            raise ValueError(
                "source must be package:<distribution>/<file>, path:<folder> or hub:<repository>"
            )
        return self
