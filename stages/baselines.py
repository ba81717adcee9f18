"""Stage baselines: answers that no model gave, to be judged like a model's."""

from pathlib import Path

import click

from blogtune.baselines.baselines import baselines
from blogtune.baselines.params import BaselineParams
from blogtune.common.command import Run, stage
from blogtune.common.output import echo
from blogtune.common.records import Answer, Pair, read_records, write_records

ANSWERS = Path("data/answers")


@click.command()
@stage
def main(run: Run) -> None:
    """Write data/answers/baselines.jsonl."""
    params = run.read("baselines", BaselineParams)
    train = list(read_records(Path("data/processed/train.jsonl"), Pair))
    base = list(read_records(ANSWERS / "base.jsonl", Answer))
    finetuned = list(read_records(ANSWERS / "finetuned.jsonl", Answer))
    answers = baselines(train, base, finetuned, params.seed)
    count = write_records(ANSWERS / "baselines.jsonl", answers)
    echo(f"baselines: {count} answers")


if __name__ == "__main__":
    main()
