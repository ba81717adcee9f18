"""Stage answer: one model answers the questions of the chosen split."""

import sys
from pathlib import Path

import click

from blogtune.answering.params import AnswerParams
from blogtune.answering.systems import SYSTEMS
from blogtune.common.command import Run, stage
from blogtune.common.output import echo
from blogtune.common.records import Answer, Pair, read_records, write_records
from blogtune.runtime.device import compute_dtype, fast_math
from blogtune.runtime.params import RuntimeParams
from blogtune.runtime.workers import worker_group

ANSWERS = Path("data/answers")


@click.command()
@click.argument("name", type=click.Choice(list(SYSTEMS)))
@stage
def main(run: Run, name: str) -> None:
    """Let NAME answer and write data/answers/NAME.jsonl."""
    params = run.read("answer", AnswerParams)
    runtime = run.read("runtime", RuntimeParams)
    system, questions = SYSTEMS[name], Path(f"data/processed/{params.split}.jsonl")
    drafts = ANSWERS / f"{system.draft}.jsonl" if system.draft else None
    pairs = list(read_records(questions, Pair))
    inputs = [path for path in (questions, system.adapter, drafts) if path]
    with worker_group(runtime, system.weights, ["stages.answer", *sys.argv[1:]], inputs) as group:
        # Here, because it takes seconds: all processes do it at the same time.
        from blogtune.answering.generate import answer_questions
        from blogtune.models.loading import load_model

        model = load_model(system.weights, compute_dtype(runtime), system.adapter)
        with fast_math():
            answers = answer_questions(model, name, pairs, params, group, _drafted(drafts))
        if group.rank() == 0:
            write_records(ANSWERS / f"{name}.jsonl", answers)
            cut = sum(answer.stop == "length" for answer in answers)
            empty = sum(not answer.answer for answer in answers)
            counts = f"{len(answers)} answers, {cut} cut at the token limit, {empty} empty"
            echo(f"{name}: {counts}")


def _drafted(file: Path | None) -> dict[str, str]:
    records = read_records(file, Answer) if file else ()
    return {record.id: record.answer for record in records}


if __name__ == "__main__":
    main()
