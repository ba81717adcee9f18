"""The `model` section of params.yaml, and `judge.model` and `data.fetch` of the same shape.

A judge may also be an Ollama model, `ollama:<name>`: its server keeps the files, and `revision` is
the model's digest.
"""

from typing import Any, ClassVar

from pydantic import ConfigDict, model_validator

from blogtune.common.params import Section


class ModelParams(Section):
    source: str
    revision: str | None

    schemes: ClassVar[dict[str, str]] = {
        "package": "package:<distribution>/<file>",
        "path": "path:<folder>",
        "hub": "hub:<repository>",
    }

    @property
    def scheme(self) -> str:
        return self.source.partition(":")[0]

    @property
    def name(self) -> str:
        """The source without its scheme."""
        return self.source.partition(":")[2]

    @model_validator(mode="after")
    def _has_a_scheme(self) -> "ModelParams":
        if self.scheme not in self.schemes or not self.name:
            *most, last = self.schemes.values()
            raise ValueError(f"source must be {', '.join(most)} or {last}")
        return self


class JudgeModelParams(ModelParams):
    schemes: ClassVar[dict[str, str]] = {**ModelParams.schemes, "ollama": "ollama:<name>"}


class DatasetParams(Section):
    """`data.fetch`: a data set on the hub; `source` is null where there is none."""

    source: str | None
    revision: str | None

    @property
    def scheme(self) -> str:
        return (self.source or "").partition(":")[0]

    @property
    def name(self) -> str:
        """The repository, "" where there is none."""
        return (self.source or "").partition(":")[2]

    @model_validator(mode="after")
    def _is_on_the_hub(self) -> "DatasetParams":
        if self.source is not None and (self.scheme != "hub" or not self.name):
            raise ValueError("source must be null or hub:<repository>")
        return self


class SecondModelParams(Section):
    """What fetching needs of `judge.second`, which is null where there is no second judge."""

    model_config = ConfigDict(extra="ignore")

    model: JudgeModelParams | None

    @model_validator(mode="before")
    @classmethod
    def _may_be_null(cls, values: Any) -> Any:
        return {"model": None} if values is None else values
