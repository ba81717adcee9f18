"""Stage train: teach LoRA adapters the blog's answers."""

from pathlib import Path

import click

from blogtune.models.loading import load_model
from blogtune.records import Pair, read_records
from blogtune.runtime.device import compute_dtype, describe
from blogtune.runtime.params import RuntimeParams
from blogtune.training.loop import train
from blogtune.training.params import TrainParams
from blogtune.training.results import write_results
from stages.command import Run, stage


@click.command()
@stage
def main(run: Run) -> None:
    """Train on models/base and write models/adapter with its loss curve."""
    params = run.read("train", TrainParams)
    runtime = run.read("runtime", RuntimeParams)
    model = load_model(Path("models/base"), compute_dtype(runtime))
    pairs = list(read_records(Path("data/processed/train.jsonl"), Pair))
    validation = list(read_records(Path("data/processed/validation.jsonl"), Pair))
    click.echo(f"training on {describe()}: {len(pairs)} pairs, {params.iterations} iterations")
    result = train(model, pairs, validation, params, Path("checkpoints"))
    write_results(result, params, Path("models/adapter"), Path("metrics"), Path("plots"))
    click.echo(result.summary())


if __name__ == "__main__":
    main()
