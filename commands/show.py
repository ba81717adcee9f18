"""`make show`: the best and the worst changes, with question, reference and answers."""

from pathlib import Path

import click

from blogtune.common.command import readable_errors
from blogtune.common.output import echo
from blogtune.common.records import read_records
from blogtune.comparing.examples import Change
from blogtune.project.comparison_table import show_examples
from blogtune.project.lock import warn_if_stale


@click.command()
def main() -> None:
    """Print data/examples.jsonl."""
    with readable_errors():
        examples = show_examples(read_records(Path("data/examples.jsonl"), Change))
        warn_if_stale()
        echo(examples)


if __name__ == "__main__":
    main()
