"""Training steps of this project: `python -m benchmarks.contenders.ours BATCHES`."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import optimizers

from blogtune.models.head import open_head
from blogtune.models.loading import load_model
from blogtune.runtime.collectives import all_sum
from blogtune.runtime.params import RuntimeParams
from blogtune.runtime.workers import worker_group
from blogtune.training.examples import Example, make_batch
from blogtune.training.lora import apply_lora
from blogtune.training.params import TrainParams
from blogtune.training.plan import choose_step
from blogtune.training.setup import Setup
from blogtune.training.step import train_step


def main() -> None:
    given: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    params, base = TrainParams(**given["params"]), Path(given["model"])
    batches = [make_batch([Example(**row) for row in rows]) for rows in given["batches"]]
    runtime = RuntimeParams(dtype="float32", processes=given["processes"])
    command = ["benchmarks.contenders.ours", *sys.argv[1:]]
    with worker_group(runtime, base, command) as group:
        model = load_model(base, mx.float32)
        mx.random.seed(params.seed)
        apply_lora(model.network, params.lora)
        examples = {each.id: each for batch in batches for each in batch.examples}
        head = open_head(model.network)
        setup = Setup(model.network, head, params, group, list(examples.values()), [])
        start = time.perf_counter()
        step = choose_step(setup, Path(given.get("folder", ".")), 0).step
        cached = time.perf_counter() - start
        optimizer = optimizers.Adam(learning_rate=params.learning_rate)
        seconds: list[float] = []
        losses: list[float] = []
        for number, batch in enumerate(batches, 1):
            mx.random.seed(number)
            start = time.perf_counter()
            losses.append(train_step(step, model.network, optimizer, [batch], None, group))
            seconds.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        peaks = float(all_sum(mx.array(peak / 1e6), group)) * 1e6
    if group.rank() == 0:
        positions = sum(example.tokens - 1 for example in examples.values())
        result = {"seconds": seconds, "losses": losses, "peak": peaks}
        print(json.dumps({**result, "cached": cached, "cached_tokens": positions}))


if __name__ == "__main__":
    main()
