"""What README and the documentation quote of the last run: its tables and one example.

Each stands between markers, `<!-- results -->` and `<!-- /results -->`, in one of PAGES.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from blogtune.common.records import read_records
from blogtune.comparing.examples import Change
from blogtune.comparing.results import COMPARISON, FITNESS, read_comparison, read_fitness
from blogtune.project.comparison_table import Metrics, markdown_parts, show_examples, side_by_side
from blogtune.project.judge_table import markdown_judge_table

PAGES = (
    Path("README.md"),
    Path("docs/explanation/verdict.md"),
    Path("docs/explanation/judge-test.md"),
)
# The comparison of a run with whole posts held out, which `make by-post` leaves.
BY_POST = Path("metrics/by_post.json")
# Not in git: where it is missing, the example stays as it is.
EXAMPLES = Path("data/examples.jsonl")
QUOTED_WORDS = 30


def renewed(root: Path) -> dict[Path, str]:
    """Each page of the repository at `root`, with what the last run gave between its markers."""
    found = quoted(root)
    return {page: _filled((root / page).read_text(encoding="utf-8"), found) for page in PAGES}


def quoted(root: Path) -> dict[str, str]:
    """What is quoted of the last run, by the name of its markers."""
    by_pair = read_comparison(root / COMPARISON)
    found = {
        "results": _result(by_pair),
        "judge": markdown_judge_table(read_fitness(root / FITNESS)),
    }
    if (root / BY_POST).exists():
        both = {"by: pair": by_pair, "by: post": read_comparison(root / BY_POST)}
        found["by post"] = side_by_side(both)
    for change in _most_gained(root / EXAMPLES):
        found["example"] = _example(change)
    return found


def _result(comparison: Metrics) -> str:
    """The table, and the verdict on what was trained."""
    table, *_ = markdown_parts(comparison)
    return f"{table}\n\n{comparison['finetuned']['verdict']}"


def _most_gained(examples: Path) -> list[Change]:
    """The first of the examples, if there are any."""
    return list(read_records(examples, Change))[:1] if examples.exists() else []


def _example(change: Change) -> str:
    """A change as `make show` prints it, its texts cut to some words."""
    texts = ("reference", "base", "finetuned")
    short = change.model_copy(update={name: _cut(getattr(change, name)) for name in texts})
    return f"```\n{show_examples([short])}\n```"


def _cut(text: str) -> str:
    words = text.split()
    return " ".join([*words[:QUOTED_WORDS], *(["..."] if len(words) > QUOTED_WORDS else [])])


def _filled(page: str, found: Mapping[str, str]) -> str:
    for name, text in found.items():
        markers = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        page = re.sub(
            markers, lambda match, text=text: f"{match[1]}{text}\n{match[2]}", page, flags=re.DOTALL
        )
    return page
