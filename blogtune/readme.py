"""README's result table, made from the committed metrics."""

import re
from pathlib import Path

from blogtune.comparing.results import COMPARISON, read_comparison
from blogtune.comparing.tables import markdown_table


def with_results(readme: str, root: Path) -> str:
    """README's text with the result of the repository at `root` between its two markers."""
    table = markdown_table(read_comparison(root / COMPARISON))
    pattern = r"(<!-- results -->\n).*?(<!-- /results -->)"
    return re.sub(pattern, lambda found: f"{found[1]}{table}\n{found[2]}", readme, flags=re.DOTALL)
