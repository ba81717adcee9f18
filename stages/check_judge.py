"""Stage check_judge: is the judge fit to decide?"""

from pathlib import Path

import click

from blogtune.checking.fitness import measure_fitness
from blogtune.checking.probes import Paraphrase
from blogtune.common.command import Run, stage
from blogtune.common.files import write_json
from blogtune.common.output import echo
from blogtune.common.records import Pair, read_records
from blogtune.judging.cache import uncached
from blogtune.judging.judge import open_judge
from blogtune.judging.params import JudgeParams
from blogtune.runtime.device import fast_math

PROCESSED = Path("data/processed")
SPLITS = ("train", "valid", "test")


@click.command()
@stage
def main(run: Run) -> None:
    """Test the judge on answers known to be right or wrong and write metrics/judge.json."""
    params = run.read("judge", JudgeParams)
    files = (PROCESSED / f"{split}.jsonl" for split in SPLITS)
    pairs = [pair for file in files for pair in read_records(file, Pair)]
    paraphrases = list(read_records(Path(params.check.paraphrases), Paraphrase))
    judge = open_judge(params, Path("models/judge"))
    with fast_math():
        fitness = measure_fitness(judge, uncached(judge), pairs, paraphrases, params.check)
    write_json(Path("metrics/judge.json"), fitness.metrics())
    echo("\n".join(filter(None, [f"{fitness.method}: {fitness.said()}", fitness.strangers()])))


if __name__ == "__main__":
    main()
