"""Training steps of stock mlx-lm: `python -m benchmarks.contenders.mlx_lm_lora BATCHES`.

Its own loop, loss and batches, masked prompts, one batch at a time. Its loss also counts the first
padding token behind each answer; `losses` are those without it, for comparison. With batches to
validate on it evaluates and saves as params.yaml says.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optimizers
from mlx_lm.tuner.trainer import TrainingArgs, default_loss, train
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load


class Batches:
    """mlx-lm's `iterate_batches` for batches that are given, with its padding.

    A data set is the list of its batches.
    """

    def __init__(self, exact: bool) -> None:
        self.exact = exact
        self.seconds: list[float] = []

    def __call__(self, dataset: list[list[dict[str, Any]]], **_: Any) -> Any:
        for rows in dataset:
            lengths = [len(row["prompt"]) + len(row["answer"]) for row in rows]
            width = 1 + 32 * -(-max(lengths) // 32)
            tokens = [row["prompt"] + row["answer"] for row in rows]
            padded = mx.array([each + [0] * (width - len(each)) for each in tokens])
            last = [length - self.exact for length in lengths]
            offsets = [len(row["prompt"]) for row in rows]
            start = time.perf_counter()
            yield padded, mx.array(list(zip(offsets, last, strict=True)))
            self.seconds.append(time.perf_counter() - start)


class Losses:
    """Collects each step's loss, as the loop reports it."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.validation: list[float] = []

    def on_train_loss_report(self, report: dict[str, Any]) -> None:
        self.losses.append(report["train_loss"])

    def on_val_loss_report(self, report: dict[str, Any]) -> None:
        self.validation.append(report["val_loss"])


def main() -> None:
    given: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    params = given["params"]
    lora = params["lora"]
    network, *_ = load(given["model"])
    network.set_dtype(mx.float32)
    network.freeze()
    mx.random.seed(params["seed"])
    keys = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
    config = {**{key: lora[key] for key in ("rank", "scale", "dropout")}, "keys": keys}
    linear_to_lora_layers(network, lora["layers"], config)
    batches, losses = Batches(given["exact"]), Losses()
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArgs(
            batch_size=params["batch_pairs"],
            iters=len(given["batches"]),
            steps_per_report=1,
            steps_per_eval=params["evaluate_every"],
            steps_per_save=params["save_every"],
            val_batches=-1,
            adapter_file=f"{folder}/adapters.safetensors",
        )
        optimizer = optimizers.Adam(learning_rate=params["learning_rate"])
        start = time.perf_counter()
        train(
            network,
            optimizer,
            train_dataset=given["batches"],
            val_dataset=given.get("validation"),
            args=args,
            loss=default_loss,
            iterate_batches=batches,
            training_callback=losses,  # type: ignore[arg-type]
        )
        whole = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # The last batch's end is never asked for.
    result = {"seconds": batches.seconds, "losses": losses.losses, "peak": peak}
    print(json.dumps({**result, "whole": whole, "validation": losses.validation}))


if __name__ == "__main__":
    main()
