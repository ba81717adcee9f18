"""Stage compare: the figures side by side, and the verdict."""

from pathlib import Path

import click

from blogtune.common.command import Run, stage
from blogtune.common.files import atomic_text, write_json
from blogtune.common.output import echo
from blogtune.common.records import Judgement, NearDuplicate, read_records, write_records
from blogtune.comparing.compare import compare
from blogtune.comparing.params import CompareParams
from blogtune.comparing.results import read_fitness


@click.command()
@stage
def main(run: Run) -> None:
    """Write metrics/comparison.json, metrics/similarity.json, plots and examples."""
    params = run.read("compare", CompareParams)
    files = sorted(Path("data/judgements").glob("*.jsonl"))
    judgements = [row for file in files for row in read_records(file, Judgement)]
    fitness = read_fitness()
    near = read_records(Path("data/processed/near_duplicates.jsonl"), NearDuplicate)
    comparison = compare(judgements, {each.test for each in near}, fitness, params)
    with atomic_text(Path("plots/similarity.csv")) as file:
        comparison.means.to_csv(file, index=False, lineterminator="\n")
    write_records(Path("data/examples.jsonl"), comparison.examples)
    write_json(Path("metrics/similarity.json"), comparison.similarity)
    write_json(Path("metrics/comparison.json"), comparison.metrics)
    echo(comparison.metrics["finetuned"]["verdict"])


if __name__ == "__main__":
    main()
