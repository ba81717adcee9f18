"""Stage judge: how close does each answer come to its reference?"""

from pathlib import Path

import click

from blogtune.common.command import Run, stage
from blogtune.common.output import echo
from blogtune.common.records import Answer, read_records, write_records
from blogtune.judging.judge import check_coverage, judge_answers, open_judge
from blogtune.judging.params import JudgeParams
from blogtune.runtime.device import fast_math

ANSWERS, JUDGEMENTS = Path("data/answers"), Path("data/judgements")


@click.command()
@stage
def main(run: Run) -> None:
    """Judge every file of data/answers into the file of that name in data/judgements."""
    params = run.read("judge", JudgeParams)
    judge = open_judge(params, Path("models/judge"))
    second = open_judge(params.second, Path("models/second")) if params.second else None
    for file in sorted(ANSWERS.glob("*.jsonl")):
        answers = list(read_records(file, Answer))
        with fast_math():
            judgements = list(judge_answers(answers, judge, params, second))
        write_records(JUDGEMENTS / file.name, judgements)
        scored = sum(judgement.similarity is not None for judgement in judgements)
        cut = sum(judgement.truncated for judgement in judgements)
        echo(f"{file.stem}: {scored} of {len(answers)} judged, {cut} not read to their end")
        # The file above is for those who look; a stage that fails here is not done for DVC.
        check_coverage(file.stem, judgements, params.min_coverage)


if __name__ == "__main__":
    main()
