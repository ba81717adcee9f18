"""Training steps of this project: `python -m benchmarks.contenders.ours BATCHES`."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import mlx.core as mx

from blogtune.models.loading import load_model
from blogtune.runtime.params import RuntimeParams
from blogtune.runtime.processes import together, total
from blogtune.training.engine import Engine
from blogtune.training.examples import Example, make_batch
from blogtune.training.params import TrainParams
from blogtune.training.trunk import Trunk, shared_beginning


def main() -> None:
    given: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    params, base = TrainParams(**given["params"]), Path(given["model"])
    batches = [make_batch([Example(**row) for row in rows]) for rows in given["batches"]]
    runtime = RuntimeParams(dtype="float32", processes=given["processes"])
    command = ["benchmarks.contenders.ours", *sys.argv[1:]]
    with together(runtime, base, command) as group:
        model = load_model(base, mx.float32)
        mx.random.seed(params.seed)
        engine = Engine(model.network, params, group)
        examples = {each.id: each for batch in batches for each in batch.examples}
        start = time.perf_counter()
        several = list(examples.values())
        beginning = shared_beginning(model.network, several)
        trunk = Trunk(model.network, params.lora.layers, group, beginning)
        for _ in trunk.compute(several, params.batch_pairs, "memory", Path()):
            pass
        trunk.release()
        trunk_seconds = time.perf_counter() - start
        engine.trunk = trunk
        seconds: list[float] = []
        losses: list[float] = []
        for number, batch in enumerate(batches, 1):
            start = time.perf_counter()
            losses.append(engine.step([batch], number, params.learning_rate))
            seconds.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        peaks = float(total(mx.array(peak / 1e6), group)) * 1e6
    if group.rank() == 0:
        positions = sum(example.tokens - 1 for example in examples.values())
        result = {"seconds": seconds, "losses": losses, "peak": peaks}
        print(json.dumps({**result, "trunk": trunk_seconds, "trunk_tokens": positions}))


if __name__ == "__main__":
    main()
