"""What the last run knows of the models' knowledge, as a line that people read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blogtune.common.errors import UserError

KNOWLEDGE = Path("metrics/knowledge.json")
NOT_MEASURED = "knows: not measured"


def read_knowledge(path: Path = KNOWLEDGE) -> dict[str, Any] | None:
    """The content of metrics/knowledge.json, None where there is none.

    Raises UserError where it is not JSON.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise UserError(
            f"not JSON ({error})", where=path, remedy="run `dvc repro -f probe`"
        ) from error
    return values


def said(metrics: Mapping[str, Any] | None) -> str:
    """How often each model chose the reference, the difference, and what chance gives.

    "knows: forced choice base 31% -> fine-tuned 45% (+14% [+5%, +23%]; chance 25%)", then how many
    questions that rests on.
    """
    if not metrics:
        return NOT_MEASURED
    without = metrics["without_distractors"]
    left_out = f"; {without} of {metrics['questions']} questions had nothing to choose among"
    if "all" not in metrics:
        return f"{NOT_MEASURED}{left_out}"
    found = metrics["all"]
    base, finetuned = (f"{found[model]['mean']:.0%}" for model in ("base", "finetuned"))
    difference = {end: f"{value:+.0%}" for end, value in found["difference"].items()}
    interval = f" [{difference['low']}, {difference['high']}]" if "low" in difference else ""
    return (
        f"knows: forced choice base {base} -> fine-tuned {finetuned} "
        f"({difference['mean']}{interval}; chance {found['chance']:.0%})"
        f"{left_out if without else ''}"
    )
