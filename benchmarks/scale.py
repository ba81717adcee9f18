"""Does a step cost the same with more data? `python -m benchmarks.scale`.

Trains on once, ten and a hundred times as many examples with the activation cache on disk, and
prints the median step and what the process holds in memory of its own. All but one block is
adapted, so that the cache is computed in minutes; where it lies and how it is read is the same.
"""

import re
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import click
import mlx.core as mx
from mlx import optimizers

from blogtune.common.params import read_params
from blogtune.common.records import Pair, read_records
from blogtune.models.chat import open_chat
from blogtune.models.head import open_head
from blogtune.models.loading import load_model
from blogtune.project.layout import markdown_table
from blogtune.training.activation_cache import cache_bytes
from blogtune.training.examples import Example, epochs, make_examples
from blogtune.training.lora import apply_lora
from blogtune.training.params import TrainParams
from blogtune.training.plan import choose_step
from blogtune.training.setup import Setup
from blogtune.training.step import train_step

BASE = Path("models/base")


@click.command(help=__doc__)
@click.option("--examples", default=100, show_default=True, help="How many are once.")
@click.option("--steps", default=12, show_default=True, help="Steps at each size.")
def main(examples: int, steps: int) -> None:
    params = read_params("train", TrainParams)
    pairs = list(read_records(Path("data/processed/train.jsonl"), Pair))
    rows = [("examples", "cache on disk, MB", "ms a token of a step (median)", "own memory, MB")]
    for times in (1, 10, 100):
        measured = _measure(pairs, examples * times, params, steps)
        rows.append((str(examples * times), *measured))
        click.echo(markdown_table(rows[-1:]), err=True)
    click.echo(markdown_table(rows))


def _measure(
    pairs: list[Pair], count: int, params: TrainParams, steps: int
) -> tuple[str, str, str]:
    model = load_model(BASE, mx.float32)
    lora = params.lora.model_copy(update={"layers": len(model.network.layers) - 1})
    params = params.model_copy(update={"lora": lora, "activation_cache": "disk"})
    known, _ = make_examples(pairs, open_chat(model.tokenizer), params.max_sequence_tokens)
    examples = _repeated(known, count)
    mx.random.seed(params.seed)
    apply_lora(model.network, params.lora)
    group = mx.distributed.init()
    setup = Setup(model.network, open_head(model.network), params, group, examples, [])
    stored = cache_bytes(model.network, setup.adapted.start, examples)
    optimizer = optimizers.Adam(learning_rate=params.learning_rate)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        step = choose_step(setup, Path(folder), 0).step
        seconds: list[float] = []
        batches = islice(epochs(examples, params.batch_pairs, params.seed), steps)
        for batch in batches:
            start = time.perf_counter()
            train_step(step, model.network, optimizer, [batch], None, group)
            # Batches are of different lengths, and a step's time follows from its tokens.
            seconds.append((time.perf_counter() - start) / batch.inputs.size)
        sizes = f"{stored / 1e6:.0f}", f"{_own_memory() / 1e6:.0f}"
    return sizes[0], f"{1000 * median(seconds):.2f}", sizes[1]


def _repeated(examples: list[Example], count: int) -> list[Example]:
    """So many of the same length distribution, each with an id of its own."""
    known = sorted(examples[:100], key=lambda example: example.tokens)
    return [replace(known[n % len(known)], id=f"{n}") for n in range(count)]


def _own_memory() -> int:
    """Bytes that are this process's own: pages of mapped files, which the system may drop, not."""
    status: Any = Path("/proc/self/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert found
    return 1024 * int(found[1])


if __name__ == "__main__":
    main()
