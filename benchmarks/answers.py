"""Greedy answers side by side: this project, mlx-lm, transformers: `python -m benchmarks.answers`.

The same questions, each contender in a process of its own and in turn. Needs models/base and
data/processed (`dvc repro prepare`), and the peers' environment for transformers.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import click

from blogtune.cpu.cores import usable_cores
from blogtune.project.layout import markdown_table

OURS, SINGLE = "this project", "mlx-lm, one by one"


@click.command(help=__doc__)
@click.option("--questions", "count", default=32, show_default=True, help="How many to answer.")
@click.option("--tokens", default=100, show_default=True, help="The longest answer.")
@click.option("--batch", default=32, show_default=True, help="Questions at once.")
@click.option("--runs", default=5, show_default=True, help="Runs of each contender, in turn.")
@click.option("--bfloat16/--no-bfloat16", default=True, help="Slow where the CPU has no such.")
@click.option("--peers", default=".venv-peers/bin/python", help="The Python that has transformers.")
def main(count: int, tokens: int, batch: int, runs: int, bfloat16: bool, peers: str) -> None:
    lines = Path("data/processed/valid.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line)["question"] for line in lines[:count]]
    cores = usable_cores()
    given = {"model": "models/base", "questions": questions, "tokens": tokens, "batch": batch}
    contenders: dict[str, tuple[list[str], dict[str, Any]]] = {
        # Each process answers its share at once.
        OURS: (_module("ours_answers"), {"processes": cores, "batch": -(-batch // cores)}),
        SINGLE: (_module("mlx_lm_answers"), {}),
    }
    if Path(peers).exists():
        script = [peers, "benchmarks/contenders/hf_answers.py"]
        for dtype in ("float32", "bfloat16")[: 1 + bfloat16]:
            contenders[f"transformers, {dtype}"] = (script, {"dtype": dtype})
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    texts: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "asked.json"
        for turn in range(runs):
            for name, (command, changes) in contenders.items():
                file.write_text(json.dumps({**given, **changes}))
                done = subprocess.run([*command, str(file)], stdout=subprocess.PIPE, check=True)
                result = json.loads(done.stdout.splitlines()[-1])
                speeds[name].append(result["tokens"] / result["seconds"])
                texts[name] = result.get("answers", [])
                click.echo(f"{turn + 1}: {name}: {speeds[name][-1]:.0f} tokens a second", err=True)
    ours = median(speeds[OURS])
    rows = [("", "tokens a second (median)", "ours is")]
    for name, values in speeds.items():
        rows.append((name, f"{median(values):.0f}", f"{ours / median(values):.2f} times it"))
    click.echo(markdown_table(rows))
    _compare(texts[OURS], texts[SINGLE])


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.contenders.{name}"]


def _compare(batched: list[str], single: list[str]) -> None:
    """Which answers differ, and after how many characters they part."""
    parted = [_common(a, b) for a, b in zip(batched, single, strict=True) if a != b]
    same = len(batched) - len(parted)
    where = f"; the others part after {median(parted):.0f} characters (median)" if parted else ""
    click.echo(f"\n{same} of {len(batched)} answers are those of one by one, to the letter{where}")


def _common(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


if __name__ == "__main__":
    main()
