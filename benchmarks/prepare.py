"""How long `prepare` takes and how much memory each row costs: `python -m benchmarks.prepare`.

The rows are made up: Zipf-like words, 20 pairs to a post, one row in a hundred an exact duplicate
and one in fifty a near-duplicate of an earlier row.
"""

import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path

import click

SMALL = 1000
PAIRS_PER_POST = 20
PARAMS = {
    "context_turns": 0,
    "max_bad_rows": 0,
    "split": {"by": "pair", "train": 0.7, "validation": 0.2, "test": 0.1, "seed": 0},
    "near_duplicates": {"method": "jaccard", "shingle_words": 3, "limit": 0.5},
}


@click.command(help=__doc__)
@click.option("--rows", default=1_000_000, show_default=True, help="Rows of the large run.")
@click.option("--words", default=60, show_default=True, help="Words in an answer, on average.")
def main(rows: int, words: int) -> None:
    _, _, small = _run(SMALL, words)
    seconds, processor, large = _run(rows, words)
    click.echo(f"{rows} rows: {seconds:.0f} s ({processor:.0f} s of processor time)")
    click.echo(f"peak {large / 2**20:.0f} MiB, {small / 2**20:.0f} MiB for {SMALL} rows")
    click.echo(f"{(large - small) / rows:.0f} bytes a row")


def _run(rows: int, words: int) -> tuple[float, float, int]:
    """Seconds, processor seconds and peak memory in bytes of a run in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "rows.jsonl")
        with source.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in _rows(rows, words))
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(_prepare, source, Path(folder, "processed")).result()


def _rows(count: int, words: int) -> Iterator[dict[str, str]]:
    draw = random.Random(0)  # noqa: S311
    vocabulary = [f"{draw.getrandbits(24):x}" for _ in range(50_000)]
    weights = list(accumulate(1 / rank for rank in range(1, len(vocabulary) + 1)))
    row: dict[str, str] = {}
    for number in range(count):
        if row and number % 50 == 0:
            row = {**row, "answer": row["answer"] + " indeed"}
        elif number % 100 != 1:
            length = words // 4 + draw.randrange(words * 3 // 2)
            text = draw.choices(vocabulary, cum_weights=weights, k=length + 12)
            row = {"question": " ".join(text[:12]), "answer": " ".join(text[12:])}
        yield {"post": f"post {number // PAIRS_PER_POST}", **row}


def _prepare(source: Path, output: Path) -> tuple[float, float, int]:
    from blogtune.data.params import DataParams
    from blogtune.data.prepare import prepare

    params = DataParams.model_validate({"path": str(source), **PARAMS})
    start, processor = time.perf_counter(), time.process_time()
    click.echo(json.dumps(prepare(params, output)))
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, processor, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main()
