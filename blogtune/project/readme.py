"""README's tables of results, made from the committed metrics."""

import re
from pathlib import Path

from blogtune.comparing.results import COMPARISON, FITNESS, read_comparison, read_fitness
from blogtune.project.comparison_table import markdown_table, side_by_side
from blogtune.project.judge_table import markdown_judge_table

# The comparison of a run with whole posts held out, which `make by-post` leaves.
BY_POST = Path("metrics/by_post.json")


def with_results(readme: str, root: Path) -> str:
    """README's text with the results of the repository at `root` between their markers."""
    by_pair = read_comparison(root / COMPARISON)
    tables = {
        "results": markdown_table(by_pair),
        "judge": markdown_judge_table(read_fitness(root / FITNESS)),
    }
    if (root / BY_POST).exists():
        both = {"by: pair": by_pair, "by: post": read_comparison(root / BY_POST)}
        tables["by post"] = side_by_side(both)
    for name, table in tables.items():
        readme = _between(name, table, readme)
    return readme


def _between(name: str, table: str, readme: str) -> str:
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    return re.sub(pattern, lambda found: f"{found[1]}{table}\n{found[2]}", readme, flags=re.DOTALL)
