"""`make reference`: write the reference pages and the JSON schema of params.yaml."""

from pathlib import Path

import click

from blogtune.common.command import readable_errors
from blogtune.common.files import atomic_text
from blogtune.common.output import echo
from blogtune.project.reference import pages


@click.command()
def main() -> None:
    """Write docs/reference/ and docs/params.schema.json from classes, comments and help texts."""
    with readable_errors():
        for path, text in pages(Path()).items():
            with atomic_text(path) as file:
                file.write(text)
            echo(f"written: {path}")


if __name__ == "__main__":
    main()
