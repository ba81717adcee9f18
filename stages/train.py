"""Stage train: teach LoRA adapters the blog's answers."""

import sys
from functools import partial
from pathlib import Path

import click

from blogtune.common.command import Run, stage
from blogtune.common.output import echo
from blogtune.common.records import Pair, read_records
from blogtune.runtime.device import compute_dtype, device
from blogtune.runtime.params import RuntimeParams
from blogtune.runtime.workers import worker_group
from blogtune.training.params import TrainParams

BASE = Path("models/base")
PAIRS = (Path("data/processed/train.jsonl"), Path("data/processed/valid.jsonl"))


@click.command()
@stage
def main(run: Run) -> None:
    """Train on models/base and write models/adapter with its loss curve."""
    params = run.read("train", TrainParams)
    runtime = run.read("runtime", RuntimeParams)
    pairs, validation = (list(read_records(file, Pair)) for file in PAIRS)
    with worker_group(runtime, BASE, ["stages.train", *sys.argv[1:]], PAIRS) as group:
        # Here, because it takes seconds: all processes do it at the same time.
        from blogtune.models.loading import load_model
        from blogtune.training.checkpoints import checkpoints_folder
        from blogtune.training.loop import train
        from blogtune.training.results import write_curve, write_results

        where = f"{device().name}, processes: {group.size()}"
        echo(f"training on {where}: {len(pairs)} pairs, {params.iterations} iterations")
        model = load_model(BASE, compute_dtype(runtime))
        # `dvc plots show` and editors draw it while the training runs.
        draw = partial(write_curve, plots=Path("plots"))
        result = train(model, pairs, validation, params, checkpoints_folder(), group, draw)
        if group.rank() == 0:
            write_results(result, params, Path("models/adapter"), Path("metrics"), Path("plots"))
            # Before they go: a file that was changed meanwhile is a reason to run again.
            run.check_unmoved()
            if result.checkpoints:
                result.checkpoints.remove()
            echo(result.summary())


if __name__ == "__main__":
    main()
