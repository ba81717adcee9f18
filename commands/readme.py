"""`make readme`: write what the last run gave into README.md and the documentation."""

from pathlib import Path

import click

from blogtune.common.command import readable_errors
from blogtune.common.files import atomic_text
from blogtune.common.output import echo
from blogtune.project.readme import renewed


@click.command()
def main() -> None:
    """Renew the tables made from metrics/, and README's example if data/examples.jsonl is there."""
    with readable_errors():
        for page, text in renewed(Path()).items():
            if page.read_text(encoding="utf-8") != text:
                with atomic_text(page) as file:
                    file.write(text)
                echo(f"renewed: {page}")


if __name__ == "__main__":
    main()
