"""Stage answer: one model answers the questions of the chosen split."""

import sys
from pathlib import Path

import click

from blogtune.answering.params import AnswerParams
from blogtune.records import Answer, Pair, read_records, write_records
from blogtune.runtime.device import compute_dtype
from blogtune.runtime.params import RuntimeParams
from blogtune.runtime.processes import together
from stages.command import Run, stage

BASE, ADAPTER, FUSED = Path("models/base"), Path("models/adapter"), Path("models/fused")
MODELS = {"base": (BASE, None), "finetuned": (BASE, ADAPTER), "fused": (FUSED, None)}
# The fused model should say what the fine-tuned one said: it is asked how far it would.
DRAFTS = {"fused": Path("data/answers/finetuned.jsonl")}


@click.command()
@click.argument("name", type=click.Choice(list(MODELS)))
@stage
def main(run: Run, name: str) -> None:
    """Let NAME answer and write data/answers/NAME.jsonl."""
    params = run.read("answer", AnswerParams)
    runtime = run.read("runtime", RuntimeParams)
    questions, (weights, adapter) = Path(f"data/processed/{params.split}.jsonl"), MODELS[name]
    pairs, drafts = list(read_records(questions, Pair)), DRAFTS.get(name)
    inputs = [path for path in (questions, adapter, drafts) if path]
    with together(runtime, weights, ["stages.answer", *sys.argv[1:]], inputs) as group:
        # Here, because it takes seconds: all processes do it at the same time.
        from blogtune.answering.generate import answer_questions
        from blogtune.models.loading import load_model

        model = load_model(weights, compute_dtype(runtime), adapter)
        answers = answer_questions(model, name, pairs, params, group, _drafted(drafts))
        if group.rank() == 0:
            write_records(Path(f"data/answers/{name}.jsonl"), answers)
            cut = sum(answer.stop == "length" for answer in answers)
            empty = sum(not answer.answer for answer in answers)
            counts = f"{len(answers)} answers, {cut} cut at the token limit, {empty} empty"
            click.echo(f"{name}: {counts}")


def _drafted(file: Path | None) -> dict[str, str]:
    records = read_records(file, Answer) if file else ()
    return {record.id: record.answer for record in records}


if __name__ == "__main__":
    main()
