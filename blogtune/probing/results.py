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
    """How often each model chose the reference, the difference, what chance gives, and PMI's word.

    "knows: forced choice base 18% -> fine-tuned 67% (+49% [+30%, +68%]; chance 14%); by PMI 26% ->
    18% (-8% [-20%, +4%])", then how many questions had nothing to choose among.
    """
    if not metrics:
        return NOT_MEASURED
    without = metrics["without_distractors"]
    left_out = f"; {without} of {metrics['questions']} questions had nothing to choose among"
    if "all" not in metrics:
        return f"{NOT_MEASURED}{left_out}"
    found = metrics["all"]
    base, finetuned = _shares(found)
    by_pmi = " -> ".join(_shares(found["pmi"]))
    return (
        f"knows: forced choice base {base} -> fine-tuned {finetuned} "
        f"({_difference(found)}; chance {found['chance']:.0%}); "
        f"by PMI {by_pmi} ({_difference(found['pmi'])}){left_out if without else ''}"
    )


def _shares(found: Mapping[str, Any]) -> tuple[str, str]:
    return f"{found['base']['mean']:.0%}", f"{found['finetuned']['mean']:.0%}"


def _difference(found: Mapping[str, Any]) -> str:
    ends = {end: f"{value:+.0%}" for end, value in found["difference"].items()}
    return f"{ends['mean']} [{ends['low']}, {ends['high']}]" if "low" in ends else ends["mean"]
