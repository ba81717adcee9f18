"""Training steps side by side: this project, mlx-lm, PEFT: `python -m benchmarks.training`.

The same examples in the same batches, the same adapters, one step after another, each contender in
a process of its own and in turn. Needs models/base and data/processed (`dvc repro prepare`
makes both), and the peers' environment for PEFT (`make bench` makes it).
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import mean, median
from typing import Any

import click

from blogtune.common.params import read_params
from blogtune.common.records import Pair
from blogtune.cpu.cores import usable_cores
from blogtune.project.doctor import gflops
from blogtune.project.layout import markdown_table

BASE = Path("models/base")
OURS, MLX_LM, STOCK = "this project", "mlx-lm, same BLAS", "mlx-lm, as pip installs it"
PEFT = {"float32": "PEFT, float32", "bfloat16": "PEFT, bfloat16"}


@dataclass
class Contender:
    """How one is started, and what its runs gave."""

    name: str
    command: list[str]
    steps: int
    given: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)


@click.command(help=__doc__)
@click.option("--data", default="data/processed/train.jsonl", help="Pairs to train on.")
@click.option("--batch", default=8, show_default=True, help="Pairs in a step.")
@click.option(
    "--steps", default=8, show_default=True, help="Steps in a run, the first not counted."
)
@click.option("--runs", default=5, show_default=True, help="Runs of each contender, in turn.")
@click.option("--stock/--no-stock", default=True, help="Also mlx-lm with its own BLAS: slow.")
@click.option("--peers", default=".venv-peers/bin/python", help="The Python that has PEFT.")
@click.option("--exact", is_flag=True, help="Without dropout, one run: are the losses the same?")
@click.option("--rate", type=float, help="Learning rate; else that of params.yaml.")
@click.option("--dropout", default=0.0, show_default=True, help="Share that the adapters drop.")
def main(
    data: str,
    batch: int,
    steps: int,
    runs: int,
    stock: bool,
    peers: str,
    exact: bool,
    rate: float | None,
    dropout: float,
) -> None:
    dropout = 0.0 if exact else dropout
    given = given_to_all(Path(data), batch, 1 + steps, dropout=dropout, rate=rate, exact=exact)
    contenders = _contenders(steps, peers, stock=stock and not exact, exact=exact)
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(1 if exact else runs):
            for contender in _worth_another(contenders):
                _run(contender, given, Path(folder))
                click.echo(f"{turn + 1}: {contender.name}: {contender.seconds[-1]:.3f} s", err=True)
    if exact:
        _compare_losses(contenders)
    else:
        _report(contenders, given)


def _worth_another(contenders: Sequence[Contender]) -> list[Contender]:
    """All but the slower of PEFT's two float types, once that is known: it may take minutes."""
    peft = [each for each in contenders if each.name in PEFT.values() and each.seconds]
    slower = max(peft, key=lambda each: each.seconds[0]) if len(peft) == len(PEFT) else None
    return [each for each in contenders if each is not slower]


def given_to_all(
    data: Path, batch: int, count: int, *, dropout: float, rate: float | None, exact: bool = False
) -> dict[str, Any]:
    """The batches as token numbers, and params.yaml's parameters with rank 8 on q, k and v."""
    from blogtune.models.chat import open_chat
    from blogtune.models.loading import load_model
    from blogtune.training.examples import epochs, make_examples
    from blogtune.training.params import TrainParams

    params = read_params("train", TrainParams)
    lora = {"targets": "qkv", "rank": 8, "dropout": dropout}
    changes = {"batch_pairs": batch, "lora": params.lora.model_copy(update=lora)}
    if rate is not None:
        changes["learning_rate"] = rate
    params = params.model_copy(update=changes)
    chat = open_chat(load_model(BASE, None).tokenizer)
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    pairs = [
        Pair(id=str(number), post=None, question=row["question"], answer=row["answer"])
        for number, row in enumerate(rows)
    ]
    examples, _ = make_examples(pairs, chat, params.max_sequence_tokens)
    chosen = islice(epochs(examples, batch, params.seed), count)
    return {
        "model": str(BASE),
        "params": params.model_dump(),
        "batches": [[vars(example) for example in one.examples] for one in chosen],
        "processes": usable_cores(),
        "exact": exact,
    }


def _contenders(steps: int, peers: str, *, stock: bool, exact: bool) -> list[Contender]:
    def module(name: str) -> list[str]:
        return [sys.executable, "-m", f"benchmarks.contenders.{name}"]

    found = [
        Contender(OURS, module("ours"), steps),
        Contender(MLX_LM, module("mlx_lm_lora"), steps),
    ]
    if stock:
        slow = {"BLOGTUNE_BLAS": "reference"}
        # The end of the last step is never seen, so that one step is two.
        found.append(Contender(STOCK, module("mlx_lm_lora"), 1, environment=slow))
    if Path(peers).exists():
        script = [peers, "benchmarks/contenders/peft_lora.py"]
        found.append(Contender(PEFT["float32"], script, steps, {"dtype": "float32"}))
        if not exact:
            found.append(Contender(PEFT["bfloat16"], script, 0, {"dtype": "bfloat16"}))
    return found


def _run(contender: Contender, given: dict[str, Any], folder: Path) -> None:
    file = folder / "batches.json"
    batches = given["batches"][: 1 + contender.steps]
    file.write_text(json.dumps({**given, **contender.given, "batches": batches}))
    done = subprocess.run(
        [*contender.command, str(file)],
        env={**os.environ, **contender.environment},
        stdout=subprocess.PIPE,
        check=True,
    )
    contender.last = json.loads(done.stdout.splitlines()[-1])
    # The mean, because all have the same batches, and their medians may be of different ones. The
    # first step also compiles, and asks the system for its memory; where a step takes minutes it
    # counts all the same.
    contender.seconds.append(mean(contender.last["seconds"][1:] or contender.last["seconds"]))


def _report(contenders: Sequence[Contender], given: dict[str, Any]) -> None:
    ours = median(contenders[0].seconds)
    rows = [("", "seconds a step", "times ours", "peak memory, GB")]
    for each in contenders:
        middle = median(each.seconds)
        memory = f"{each.last['peak'] / 1e9:.1f}"
        rows.append((each.name, f"{middle:.2f}", f"{middle / ours:.2f}", memory))
    click.echo(markdown_table(rows))
    own = contenders[0].last
    click.echo(
        f"\ntrial and activation cache: {own['cached']:.1f} s for {own['cached_tokens']} tokens; "
        f"sgemm: {gflops():.0f} GFLOP/s"
    )
    counted = given["batches"][1 : 1 + contenders[0].steps]
    click.echo(f"a step needs {_needed(counted) / 1e9:.0f} GFLOP in matrix products")


def _needed(batches: Sequence[list[dict[str, Any]]]) -> float:
    """Floating-point operations that the mathematics of one step needs: products alone, mean.

    Weights of the adapted blocks and of the output layer are used once forward and once backward
    (they are frozen, so nothing is accumulated for them), and the lowest block's input needs no
    gradient, which is left out of account.
    """
    config = json.loads((BASE / "config.json").read_text())
    width, inner = config["hidden_size"], config["intermediate_size"]
    heads, keys = config["num_attention_heads"], config["num_key_value_heads"]
    narrow = width * keys // heads
    block = 2 * width * width + 2 * width * narrow + 3 * width * inner
    total = 0.0
    for rows in batches:
        lengths = [len(row["prompt"]) + len(row["answer"]) - 1 for row in rows]
        answers = sum(len(row["answer"]) for row in rows)
        attention = sum(2 * length * length * width for length in lengths)
        blocks = 8 * (2 * block * sum(lengths) + 2 * attention)
        total += 2 * (blocks + 2 * width * config["vocab_size"] * answers)
    return total / len(batches)


def _compare_losses(contenders: Sequence[Contender]) -> None:
    ours = contenders[0].last["losses"]
    for other in contenders[1:]:
        # PEFT draws its matrices from another generator; before the first update they do not count.
        compared = 1 if other.name == PEFT["float32"] else len(ours)
        pairs = list(zip(ours, other.last["losses"], strict=True))[:compared]
        apart = [abs(a - b) / b for a, b in pairs]
        click.echo(f"{other.name}: {len(pairs)} losses, at most {max(apart):.1e} apart (relative)")
        click.echo("one by one: " + " ".join(f"{each:.0e}" for each in apart))


if __name__ == "__main__":
    main()
