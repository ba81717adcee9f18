"""`make judge`: the judge's test as a table."""

import click

from blogtune.comparing.results import read_fitness
from blogtune.judging.table import plain_judge_table
from stages.command import readable_errors


@click.command()
def main() -> None:
    """Print metrics/judge.json."""
    with readable_errors():
        click.echo(plain_judge_table(read_fitness()))


if __name__ == "__main__":
    main()
