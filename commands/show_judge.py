"""`make judge`: the judge's test as a table."""

import click

from blogtune.common.command import readable_errors
from blogtune.common.output import echo
from blogtune.comparing.results import read_fitness
from blogtune.project.judge_table import plain_judge_table
from blogtune.project.lock import warn_if_stale


@click.command()
def main() -> None:
    """Print metrics/judge.json."""
    with readable_errors():
        table = plain_judge_table(read_fitness())
        warn_if_stale()
        echo(table)


if __name__ == "__main__":
    main()
