"""Stage baselines: answers that no model gave, to be judged like a model's."""

from pathlib import Path

import click

from blogtune.answering.params import AnswerParams
from blogtune.comparing.baselines import baselines
from blogtune.comparing.params import BaselineParams
from blogtune.records import Answer, Pair, read_records, write_records
from stages.command import Run, stage

PROCESSED, ANSWERS = Path("data/processed"), Path("data/answers")


@click.command()
@stage
def main(run: Run) -> None:
    """Write data/answers/baselines.jsonl."""
    params = run.read("baselines", BaselineParams)
    split = run.read("answer", AnswerParams).split
    questions = list(read_records(PROCESSED / f"{split}.jsonl", Pair))
    train = list(read_records(PROCESSED / "train.jsonl", Pair))
    base = list(read_records(ANSWERS / "base.jsonl", Answer))
    finetuned = list(read_records(ANSWERS / "finetuned.jsonl", Answer))
    answers = baselines(questions, train, base, finetuned, params.seed)
    count = write_records(ANSWERS / "baselines.jsonl", answers)
    click.echo(f"baselines: {count} answers")


if __name__ == "__main__":
    main()
