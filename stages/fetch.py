"""Stage fetch: bring the files of the base model or of a judge into models/."""

from pathlib import Path

import click

from blogtune.models.params import JudgeModelParams, ModelParams, SecondModelParams
from blogtune.models.sources import fetch
from stages.command import Run, stage

SECTIONS = {"base": "model", "judge": "judge.model", "second": "judge.second"}
KINDS = {"base": ModelParams, "judge": JudgeModelParams, "second": SecondModelParams}


@click.command()
@click.argument("name", type=click.Choice(list(SECTIONS)))
@stage
def main(run: Run, name: str) -> None:
    """Fetch NAME into models/NAME, with its receipt in source.json."""
    params = run.read(SECTIONS[name], KINDS[name])
    model = params.model if isinstance(params, SecondModelParams) else params
    receipt = fetch(model, Path("models") / name)
    if model is None:
        click.echo(f"{name}: none")
    else:
        click.echo(f"{name}: {receipt['origin']}, license {receipt['license'] or 'not stated'}")


if __name__ == "__main__":
    main()
