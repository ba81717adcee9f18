"""Reads one section of params.yaml into a frozen, validated object.

Each section's class stands beside its verb (`blogtune/<verb>/params.py`), so that a new judging
key does not rerun the training. Every default stands in params.yaml and nowhere else: a missing
key is an error, and so is one that nobody knows.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML, YAMLError

from blogtune.errors import UserError

PARAMS_FILE = Path("params.yaml")
COMPARE = "`git diff params.yaml` shows what was there"


class Section(BaseModel):
    """Base of every section: immutable, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


S = TypeVar("S", bound=Section)


def read_params(section: str, kind: type[S], path: Path = PARAMS_FILE) -> S:
    """Return the validated section, `section` being its dotted name ("judge.model"; "": all).

    Raises UserError that names the key, its value and the remedy.
    """
    values = _descend(_load(path), section, path)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(_explain(error, section, kind, path)) from error


def _load(path: Path) -> Any:
    try:
        # YAML 1.2: 1e-5 is a number, which PyYAML reads as text.
        return YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found; run this from the repository's root") from error
    except (YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{path}: not readable as YAML: {line}") from error


def _descend(values: Any, section: str, path: Path) -> Any:
    for name in filter(None, section.split(".")):
        if not isinstance(values, dict) or name not in values:
            raise UserError(f"{path}: {section}: missing; {COMPARE}")
        values = values[name]
    return values


def _explain(error: ValidationError, section: str, kind: type[Section], path: Path) -> str:
    """One line for the first problem, with a guess at the key that was meant."""
    # A misspelt key is also a missing one: the misspelling is what the reader looks for.
    problem = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    where = ".".join(filter(None, [section, *map(str, problem["loc"])]))
    count = error.error_count()
    more = f" (and {count - 1} more)" if count > 1 else ""
    if problem["type"] == "extra_forbidden":
        near = get_close_matches(str(problem["loc"][-1]), _keys(kind, problem["loc"][:-1]), 1)
        hint = f"did you mean {near[0]}?" if near else "remove it"
        return f"{path}: {where}: unknown key; {hint}{more}"
    if problem["type"] == "missing":
        return f"{path}: {where}: missing; {COMPARE}{more}"
    message = problem["msg"].removeprefix("Value error, ")
    # A whole section is too long for a line, and it stands in the file.
    got = "" if isinstance(problem["input"], dict) else f", got {problem['input']!r}"
    return f"{path}: {where}: {message}{got}{more}"


def _keys(kind: type[Section], location: tuple[int | str, ...]) -> list[str]:
    for name in location:
        inner = kind.model_fields[str(name)].annotation
        if not (isinstance(inner, type) and issubclass(inner, Section)):
            return []
        kind = inner
    return list(kind.model_fields)
