"""Stage fetch: bring the base model, the judges and a data set of the hub into their folders."""

from pathlib import Path

import click

from blogtune.common.command import Run, stage
from blogtune.common.output import echo
from blogtune.common.sources import (
    DatasetParams,
    JudgeModelParams,
    ModelParams,
    SecondModelParams,
)
from blogtune.fetching.fetch import check_sources, fetch, fetch_data, kept


@click.command()
@stage
def main(run: Run) -> None:
    """Fill models/base, models/judge, models/second and data/fetched, each with source.json."""
    models = {
        "base": run.read("model", ModelParams),
        "judge": run.read("judge.model", JudgeModelParams),
        "second": run.read("judge.second", SecondModelParams).model,
    }
    check_sources(models)
    for name, source in models.items():
        folder = Path("models") / name
        _tell(name, kept(source, folder) or fetch(source, folder))
    data, folder = run.read("data.fetch", DatasetParams), Path("data/fetched")
    _tell("data", kept(data, folder) or fetch_data(data, folder))


def _tell(name: str, receipt: dict[str, object]) -> None:
    if receipt["source"] is not None:
        echo(f"{name}: {receipt['origin']}, license {receipt['license'] or 'not stated'}")


if __name__ == "__main__":
    main()
