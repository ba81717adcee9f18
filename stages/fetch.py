"""Stage fetch: bring the base model's or the judge's files into models/."""

from pathlib import Path

import click

from blogtune.models.params import ModelParams
from blogtune.models.sources import fetch
from stages.command import Run, stage

SECTIONS = {"base": "model", "judge": "judge.model"}


@click.command()
@click.argument("name", type=click.Choice(list(SECTIONS)))
@stage
def main(run: Run, name: str) -> None:
    """Fetch NAME into models/NAME, with its receipt in source.json."""
    params = run.read(SECTIONS[name], ModelParams)
    receipt = fetch(params, Path("models") / name)
    click.echo(f"{name}: {receipt['origin']}, license {receipt['license'] or 'not stated'}")


if __name__ == "__main__":
    main()
