"""README's result table, made from the committed metrics."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blogtune.comparing.results import COMPARISON, read_comparison

BY_POST = Path("docs/results/by-post.json")
HEADER = (
    "| | by: pair | | | | by: post | | | |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    "| **model** | **mean** | **good** | **poor** | **beyond** "
    "| **mean** | **good** | **poor** | **beyond** |"
)


def results(root: Path) -> str:
    """Both splits side by side: a row for each model, then the differences and the verdicts."""
    both = [read_comparison(root / path) for path in (COMPARISON, BY_POST)]
    names = [name for name, model in both[0].items() if isinstance(model, Mapping)]
    rows = [f"| {_label(n)} | {' | '.join(_figures(c[n]) for c in both)} |" for n in names]
    lines = [
        f"- {split}: {_claim(c)}" for split, c in zip(("by: pair", "by: post"), both, strict=True)
    ]
    return "\n".join([HEADER, *rows, "", *lines])


def with_results(readme: str, text: str) -> str:
    """README's text with `text` between its two markers."""
    pattern = r"(<!-- results -->\n).*?(<!-- /results -->)"
    return re.sub(pattern, lambda found: f"{found[1]}{text}\n{found[2]}", readme, flags=re.DOTALL)


def _label(name: str) -> str:
    return name.replace("_", " ")


def _figures(model: Mapping[str, Any]) -> str:
    shares = f"{model['mean']:.3f} | {model['good']:.0%} | {model['poor']:.0%}"
    return f"{shares} | {model['beyond_question']:.3f}"


def _claim(comparison: Mapping[str, Any]) -> str:
    return str(comparison["finetuned"]["verdict"])
