"""`make show`: the best and the worst changes, with question, reference and answers."""

from pathlib import Path

import click

from blogtune.comparing.examples import Change
from blogtune.comparing.tables import show_examples
from blogtune.lock import warn_if_stale
from blogtune.records import read_records
from stages.command import readable_errors


@click.command()
def main() -> None:
    """Print data/examples.jsonl."""
    with readable_errors():
        examples = show_examples(read_records(Path("data/examples.jsonl"), Change))
        warn_if_stale()
        click.echo(examples)


if __name__ == "__main__":
    main()
