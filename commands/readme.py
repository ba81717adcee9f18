"""`make readme`: write the committed results into README.md."""

from pathlib import Path

import click

from blogtune.common.command import readable_errors
from blogtune.common.files import atomic_text
from blogtune.project.readme import with_results

README = Path("README.md")


@click.command()
def main() -> None:
    """Replace README's result table by one made from metrics/."""
    with readable_errors():
        text = with_results(README.read_text(encoding="utf-8"), Path())
        with atomic_text(README) as file:
            file.write(text)


if __name__ == "__main__":
    main()
