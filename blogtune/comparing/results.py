"""Reads what the last run left in metrics/."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from blogtune.checking.figures import Fitness
from blogtune.common.errors import UserError

COMPARISON = Path("metrics/comparison.json")
FITNESS = Path("metrics/judge.json")


def read_comparison(path: Path = COMPARISON) -> dict[str, Any]:
    """The content of metrics/comparison.json. Raises UserError where there is none."""
    try:
        values: dict[str, Any] = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise UserError(
            f"not JSON ({error})", where=path, remedy="run `dvc repro -f compare`"
        ) from error
    return values


def read_fitness(path: Path = FITNESS) -> Fitness:
    """The content of metrics/judge.json. Raises UserError where there is none."""
    try:
        return Fitness.model_validate_json(_text(path))
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"])) or "file"
        raise UserError(
            f"{field}: {problem['msg']}", where=path, remedy="run `dvc repro -f check_judge`"
        ) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError("not there yet", where=path, remedy="run `make repro`") from error
