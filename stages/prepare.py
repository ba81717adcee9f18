"""Stage prepare: the blog's records become question/answer pairs, split in three."""

from pathlib import Path

import click

from blogtune.common.command import Run, stage
from blogtune.common.files import write_json
from blogtune.common.output import echo
from blogtune.data.params import DataParams
from blogtune.data.prepare import prepare


@click.command()
@stage
def main(run: Run) -> None:
    """Write data/processed/ and metrics/data.json."""
    metrics = prepare(run.read("data", DataParams), Path("data/processed"))
    write_json(Path("metrics/data.json"), metrics)
    echo(
        f"{metrics['pairs']} pairs of {metrics['posts']} posts: {metrics['train']} train, "
        f"{metrics['validation']} validation, {metrics['test']} test"
    )


if __name__ == "__main__":
    main()
