"""The fused model in transformers against MLX, on the same tokens: `python -m benchmarks.fused`.

Teacher-forced: both read a validation question and its reference answer, and their first choices
are compared at every answer token; then both answer greedily, and it is told where their texts
part. Needs models/fused, data/processed and the peers' environment (`make bench` makes it).
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import mlx.core as mx
import numpy as np
from scipy.special import log_softmax

from blogtune.answering.generate import answer_questions
from blogtune.answering.params import AnswerParams
from blogtune.common.records import Pair, read_records
from blogtune.models.chat import open_chat
from blogtune.models.loading import load_model

PEERS = Path(".venv-peers/bin/python")
SCRIPT = Path(__file__).parent / "contenders/hf_fused.py"


@dataclass(frozen=True)
class Agreement:
    """How far transformers and MLX agree on one model.

    `difference` is the largest of the answer tokens' log probabilities, in nats; `parted` has for
    each greedy answer the characters that both share, None where they are the same to the end.
    """

    positions: int
    top1: float
    difference: float
    parted: tuple[int | None, ...]

    def __str__(self) -> str:
        places = [place for place in self.parted if place is not None]
        same = len(self.parted) - len(places)
        where = f"; the others part after {sorted(places)} characters" if places else ""
        middle = f", {median(places):.0f} in the middle" if len(places) > 1 else ""
        return (
            f"top-1 agreement {self.top1:.2%} at {self.positions} tokens, log probabilities within "
            f"{self.difference:.1e} nats; {same} of {len(self.parted)} greedy answers the same"
            f"{where}{middle}"
        )


@click.command(help=__doc__)
@click.option("--model", default="models/fused", show_default=True)
@click.option("--texts", default=40, show_default=True, help="Validation pairs to read.")
@click.option("--tokens", default=60, show_default=True, help="The longest greedy answer.")
@click.option("--dtype", default="float32", show_default=True, help="What both compute in.")
@click.option("--peers", default=str(PEERS), help="The Python that has transformers and torch.")
def main(model: str, texts: int, tokens: int, dtype: str, peers: str) -> None:
    pairs = list(read_records(Path("data/processed/valid.jsonl"), Pair))[:texts]
    (agreement,) = compare([(Path(model), pairs)], tokens, dtype, Path(peers))
    click.echo(f"{model} in {dtype}: {agreement}")


def compare(
    models: Sequence[tuple[Path, Sequence[Pair]]], tokens: int, dtype: str, peers: Path
) -> list[Agreement]:
    """Read and answer each model's pairs with it, here with MLX and there with transformers."""
    jobs = [_job(folder, pairs, tokens, dtype) for folder, pairs in models]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "jobs.json"
        file.write_text(json.dumps(jobs))
        done = subprocess.run([peers, SCRIPT, file], stdout=subprocess.PIPE, check=True)
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        _compared(job, pairs, result)
        for job, (_, pairs), result in zip(jobs, models, theirs, strict=True)
    ]


def _job(folder: Path, pairs: Sequence[Pair], tokens: int, dtype: str) -> dict[str, Any]:
    chat = open_chat(load_model(folder, None).tokenizer)
    texts = [
        {"prompt": chat.prompt(p.question, p.context), "answer": chat.answer(p.answer)}
        for p in pairs
    ]
    given = {"model": str(folder), "dtype": dtype, "tokens": tokens}
    return {**given, "stops": chat.stops, "texts": texts}


def _compared(job: dict[str, Any], pairs: Sequence[Pair], theirs: dict[str, Any]) -> Agreement:
    model = load_model(Path(job["model"]), getattr(mx, job["dtype"]))
    agreements: list[bool] = []
    differences: list[float] = []
    for scores, text, top, chosen in zip(
        _scores(model.network, job["texts"]),
        job["texts"],
        theirs["top"],
        theirs["log_probabilities"],
        strict=True,
    ):
        agreements.extend(scores.argmax(axis=1) == top)
        ours = scores[np.arange(len(chosen)), text["answer"]]
        differences.extend(np.abs(ours - chosen))
    params = AnswerParams(split="valid", max_tokens=job["tokens"], batch_questions=16)
    answers = answer_questions(model, "fused", pairs, params, mx.distributed.init())
    parted = [
        _parted(ours.answer, other) for ours, other in zip(answers, theirs["answers"], strict=True)
    ]
    return Agreement(
        positions=len(agreements),
        top1=float(np.mean(agreements)),
        difference=float(np.max(differences)),
        parted=tuple(parted),
    )


def _scores(network: Any, texts: Sequence[dict[str, list[int]]]) -> Iterator[Any]:
    """Log probabilities at each text's answer tokens, (answer tokens x vocabulary)."""
    for text in texts:
        prompt, answer = text["prompt"], text["answer"]
        logits = network(mx.array([[*prompt, *answer[:-1]]]))[0, len(prompt) - 1 :]
        yield log_softmax(np.asarray(logits.astype(mx.float32), np.float64), axis=1)


def _parted(one: str, other: str) -> int | None:
    """How many characters both begin with; None where they are the same."""
    if one == other:
        return None
    pairs = zip(one, other, strict=False)
    shorter = min(len(one), len(other))
    return next((n for n, (a, b) in enumerate(pairs) if a != b), shorter)


if __name__ == "__main__":
    main()
