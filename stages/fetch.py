"""Stage fetch: bring the base model, a judge or a data set of the hub into its folder."""

from pathlib import Path

import click

from blogtune.models.params import DatasetParams, JudgeModelParams, ModelParams, SecondModelParams
from blogtune.models.sources import fetch, fetch_data
from stages.command import Run, stage

SECTIONS = {"base": "model", "judge": "judge.model", "second": "judge.second", "data": "data.fetch"}
KINDS = {
    "base": ModelParams,
    "judge": JudgeModelParams,
    "second": SecondModelParams,
    "data": DatasetParams,
}


@click.command()
@click.argument("name", type=click.Choice(list(SECTIONS)))
@stage
def main(run: Run, name: str) -> None:
    """Fetch NAME into models/NAME, data into data/fetched, with the receipt source.json."""
    params = run.read(SECTIONS[name], KINDS[name])
    if isinstance(params, DatasetParams):
        receipt = fetch_data(params, Path("data/fetched"))
    else:
        model = params.model if isinstance(params, SecondModelParams) else params
        receipt = fetch(model, Path("models") / name)
    if receipt["source"] is None:
        click.echo(f"{name}: none")
    else:
        click.echo(f"{name}: {receipt['origin']}, license {receipt['license'] or 'not stated'}")


if __name__ == "__main__":
    main()
