"""Reads the comparison that the last run left."""

import json
from pathlib import Path
from typing import Any

from blogtune.errors import UserError

COMPARISON = Path("metrics/comparison.json")


def read_comparison(path: Path = COMPARISON) -> dict[str, Any]:
    """The content of metrics/comparison.json. Raises UserError where there is none."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: not there yet; run `make repro`") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON ({error}); run `dvc repro -f compare`") from error
    return values
