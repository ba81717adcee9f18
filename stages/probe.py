"""Stage probe: does a model find the blog's answers likelier than wrong ones?"""

from functools import partial
from pathlib import Path

import click

from blogtune.answering.params import AnswerParams
from blogtune.answering.systems import SYSTEMS
from blogtune.common.command import Run, stage
from blogtune.common.files import write_json
from blogtune.common.output import echo
from blogtune.common.records import Pair, read_records, write_records
from blogtune.models.loading import load_model
from blogtune.probing.choice import MODELS
from blogtune.probing.params import ProbeParams
from blogtune.probing.probe import probe
from blogtune.probing.results import said
from blogtune.runtime.device import compute_dtype, fast_math
from blogtune.runtime.params import RuntimeParams

PROCESSED = Path("data/processed")


@click.command()
@stage
def main(run: Run) -> None:
    """Write data/knowledge.jsonl and metrics/knowledge.json."""
    params = run.read("probe", ProbeParams)
    split = run.read("answer", AnswerParams).split
    dtype = compute_dtype(run.read("runtime", RuntimeParams))
    train, valid, test = (
        list(read_records(PROCESSED / f"{name}.jsonl", Pair)) for name in ("train", "valid", "test")
    )
    # While a setting is tuned, nothing is taken from the test pairs.
    pairs, held_out = (test, [*valid, *test]) if split == "test" else (valid, valid)
    models = {
        name: partial(load_model, SYSTEMS[name].weights, dtype, SYSTEMS[name].adapter)
        for name in MODELS
    }
    with fast_math():
        found = probe(models, pairs, held_out, [*train, *held_out], params)
    write_records(Path("data/knowledge.jsonl"), found.items)
    write_json(Path("metrics/knowledge.json"), found.metrics)
    echo(said(found.metrics))


if __name__ == "__main__":
    main()
