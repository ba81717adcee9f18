"""A whole training of this project: `python -m benchmarks.contenders.ours_whole GIVEN`."""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import mlx.core as mx

from blogtune.common.records import Pair
from blogtune.models.loading import load_model
from blogtune.runtime.params import RuntimeParams
from blogtune.runtime.workers import together, total
from blogtune.training.loop import train
from blogtune.training.params import TrainParams


def main() -> None:
    given: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    params, base = TrainParams(**given["params"]), Path(given["model"])
    pairs = [Pair(**row) for row in given["train_pairs"]]
    validation = [Pair(**row) for row in given["validation_pairs"]]
    runtime = RuntimeParams(dtype="float32", processes=given["processes"])
    command = ["benchmarks.contenders.ours_whole", *sys.argv[1:]]
    with together(runtime, base, command) as group, tempfile.TemporaryDirectory() as folder:
        model = load_model(base, mx.float32)
        start = time.perf_counter()
        result = train(model, pairs, validation, params, Path(folder), group)
        whole = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        peaks = float(total(mx.array(peak / 1e6), group)) * 1e6
    if group.rank() == 0:
        losses = [result.base_validation_loss, *(row.validation_loss for row in result.curve)]
        print(json.dumps({"whole": whole, "peak": peaks, "validation": losses}))


if __name__ == "__main__":
    main()
