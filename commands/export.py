"""`make export`: register the fused model on an Ollama server, and say what serving costs."""

from pathlib import Path

import click

from blogtune.answering.params import AnswerParams
from blogtune.common.command import Run, stage
from blogtune.common.files import write_json
from blogtune.common.output import echo
from blogtune.common.records import Answer, Pair, read_records
from blogtune.exporting.export import FUSED_ANSWERS, closing, export
from blogtune.exporting.params import ExportParams
from blogtune.judging.params import JudgeParams
from blogtune.runtime.device import compute_dtype, fast_math
from blogtune.runtime.params import RuntimeParams


@click.command()
@stage
def main(run: Run) -> None:
    """Write metrics/export.json, and models/export/ where params.yaml says so."""
    params = run.read("export", ExportParams)
    answering = run.read("answer", AnswerParams)
    judging = run.read("judge", JudgeParams)
    dtype = compute_dtype(run.read("runtime", RuntimeParams))
    pairs = list(read_records(Path(f"data/processed/{answering.split}.jsonl"), Pair))
    fused = list(read_records(FUSED_ANSWERS, Answer))
    with fast_math():
        metrics = export(pairs, fused, params, answering, judging, dtype)
    write_json(Path("metrics/export.json"), metrics)
    echo(closing(metrics, params))


if __name__ == "__main__":
    main()
