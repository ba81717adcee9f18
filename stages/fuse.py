"""Stage fuse: merge the adapter into the base model, and prove that it is the same model."""

from pathlib import Path

import click

from blogtune.common.command import Run, stage
from blogtune.common.files import write_json
from blogtune.common.output import echo
from blogtune.common.records import Pair, read_records
from blogtune.fusing.fuse import fuse
from blogtune.fusing.params import FuseParams
from blogtune.fusing.parity import compare, expected, load
from blogtune.runtime.device import fast_math

BASE, ADAPTER, FUSED = Path("models/base"), Path("models/adapter"), Path("models/fused")


@click.command()
@stage
def main(run: Run) -> None:
    """Write models/fused and metrics/fusion.json; fail if the fused model departs."""
    params = run.read("fuse", FuseParams)
    stored = fuse(BASE, ADAPTER, FUSED, params)
    pairs = list(read_records(Path("data/processed/valid.jsonl"), Pair))
    with fast_math():
        adapted = dict(expected(load(BASE, ADAPTER), pairs, params))
        parity = compare(adapted, load(FUSED), pairs, params)
    parity.check(params, stored.dtype)
    write_json(Path("metrics/fusion.json"), {**parity.metrics(), "stored": str(stored)})
    only = "; only MLX reads this: fuse.dequantize: true is for others" if parity.quantized else ""
    echo(
        f"fused: top-1 agreement {parity.top1_agreement:.2%} at {parity.positions} tokens, "
        f"mean KL {parity.mean_kl:.1e}; stored as {stored}{only}"
    )


if __name__ == "__main__":
    main()
