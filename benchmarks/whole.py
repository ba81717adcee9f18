"""A whole training side by side with mlx-lm's, evaluations included: `python -m benchmarks.whole`.

The iterations, evaluations and saves of params.yaml, rank 8 on query, key and value, a constant
rate; the same pairs in the same batches, the same BLAS; ours with all that it does before its first
step. Ours runs before and after, because one run of mlx-lm takes 20 minutes.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks.training import BASE, MLX_LM, OURS, given_to_all
from blogtune.common.records import Pair, read_records
from blogtune.models.chat import open_chat
from blogtune.models.loading import load_model
from blogtune.project.layout import markdown_table
from blogtune.training.examples import batches_by_length, make_examples

DATA = Path("data/processed")
VALIDATION = 64


@click.command(help=__doc__)
@click.option("--iterations", default=300, show_default=True, help="Steps of each training.")
@click.option("--rate", default=4e-4, show_default=True, help="Learning rate.")
def main(iterations: int, rate: float) -> None:
    given = given_to_all(DATA / "train.jsonl", 8, iterations, dropout=0.0, rate=rate)
    changes = {"iterations": iterations, "schedule": "constant", "warmup_iterations": 0}
    # mlx-lm's loss would count a padding token behind each answer.
    given["exact"] = True
    given["params"].update({**changes, "validation_pairs": 0, "accumulate_batches": 1})
    pairs = list(read_records(DATA / "valid.jsonl", Pair))[:VALIDATION]
    chat = open_chat(load_model(BASE, None).tokenizer)
    examples, _ = make_examples(pairs, chat, given["params"]["max_sequence_tokens"])
    given["validation"] = [
        [vars(example) for example in batch.examples] for batch in batches_by_length(examples, 8)
    ]
    given["validation_pairs"] = [pair.model_dump() for pair in pairs]
    rows = read_records(DATA / "train.jsonl", Pair)
    given["train_pairs"] = [pair.model_dump() for pair in rows]
    found: dict[str, list[dict[str, Any]]] = {OURS: [], MLX_LM: []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "given.json"
        file.write_text(json.dumps(given))
        for name, module in ((OURS, "ours_whole"), (MLX_LM, "mlx_lm_lora"), (OURS, "ours_whole")):
            command = [sys.executable, "-m", f"benchmarks.contenders.{module}", str(file)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            click.echo(f"{name}: {found[name][-1]['whole']:.0f} s", err=True)
    ours = median(each["whole"] for each in found[OURS])
    table = [("", "seconds", "times ours", "validation loss, first to last", "peak memory, GB")]
    for name, runs in found.items():
        seconds = median(each["whole"] for each in runs)
        losses = " ".join(f"{loss:.4f}" for loss in runs[0]["validation"])
        peak = f"{max(each['peak'] for each in runs) / 1e9:.2f}"
        table.append((name, f"{seconds:.0f}", f"{seconds / ours:.2f}", losses, peak))
    click.echo(markdown_table(table))


if __name__ == "__main__":
    main()
