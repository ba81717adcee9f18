"""README's tables of results, made from the committed metrics."""

import re
from pathlib import Path

from blogtune.comparing.results import COMPARISON, FITNESS, read_comparison, read_fitness
from blogtune.comparing.tables import markdown_table
from blogtune.judging.table import markdown_judge_table


def with_results(readme: str, root: Path) -> str:
    """README's text with the results of the repository at `root` between their markers."""
    tables = {
        "results": markdown_table(read_comparison(root / COMPARISON)),
        "judge": markdown_judge_table(read_fitness(root / FITNESS)),
    }
    for name, table in tables.items():
        readme = _between(name, table, readme)
    return readme


def _between(name: str, table: str, readme: str) -> str:
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    return re.sub(pattern, lambda found: f"{found[1]}{table}\n{found[2]}", readme, flags=re.DOTALL)
