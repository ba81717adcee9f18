"""Stage judge: how close does each answer come to its reference?"""

from pathlib import Path

import click

from blogtune.judging.judge import check_coverage, judge_answers, open_judge
from blogtune.judging.params import JudgeParams
from blogtune.records import Answer, read_records, write_records
from stages.command import Run, stage


@click.command()
@click.argument("name", type=click.Choice(["base", "finetuned", "fused", "baselines"]))
@stage
def main(run: Run, name: str) -> None:
    """Judge data/answers/NAME.jsonl and write data/judgements/NAME.jsonl."""
    params = run.read("judge", JudgeParams)
    answers = list(read_records(Path(f"data/answers/{name}.jsonl"), Answer))
    judge = open_judge(params, Path("models/judge"))
    second = open_judge(params.second, Path("models/second")) if params.second else None
    judgements = list(judge_answers(answers, judge, params, second))
    write_records(Path(f"data/judgements/{name}.jsonl"), judgements)
    scored = sum(judgement.similarity is not None for judgement in judgements)
    truncated = sum(judgement.truncated for judgement in judgements)
    click.echo(
        f"{name}: {scored} of {len(answers)} judged, {truncated} longer than the judge reads"
    )
    # The file above is for those who look; a stage that fails here is not done for DVC.
    check_coverage(name, judgements, params.min_coverage)


if __name__ == "__main__":
    main()
