"""The `publish` section of params.yaml."""

import re

from pydantic import Field, field_validator

from blogtune.common.params import Section


class PublishParams(Section):
    repository: str | None
    private: bool
    adapter: bool
    gguf: bool
    language: str | None = Field(pattern="^[a-z]{2,3}$")
    license: str | None = Field(min_length=1)
    data_license: str | None = Field(min_length=1)

    @field_validator("repository")
    @classmethod
    def _names_its_owner(cls, repository: str | None) -> str | None:
        if repository is not None and not re.fullmatch(
            r"\w[\w.-]*/\w[\w.-]*", repository, re.ASCII
        ):
            raise ValueError("must be null or <owner>/<name>")
        return repository
