"""The whole pipeline with the real dvc, model and judge, on the profile tiny."""

import hashlib
import re

import pytest

from tests.integration.conftest import FirstRun
from tests.integration.project import Project, ran

MODELS = ("base", "finetuned", "fused")
BASELINES = ("echo", "base_cut", "random_training_answer", "nearest_training_answer")
FIGURES = ("mean", "median", "sd", "good", "poor", "coverage", "beyond_question", "empty", "cut")
STAGES = {
    *("fetch@base", "fetch@judge", "prepare", "train", "fuse", "baselines", "compare"),
    *(f"answer@{name}" for name in MODELS),
    *(f"judge@{name}" for name in (*MODELS, "baselines")),
}


def test_every_stage_runs(pipeline: FirstRun) -> None:
    assert ran(pipeline.output) == STAGES


def test_the_metrics_have_their_stable_names(pipeline: FirstRun) -> None:
    comparison = pipeline.project.json("metrics/comparison.json")
    for name in (*MODELS, *BASELINES):
        assert set(FIGURES) <= set(comparison[name])
        for difference in () if name == "base" else ("difference", "beyond_question_difference"):
            assert {"mean", "low", "high"} <= set(comparison[name][difference])


def test_the_similarity_metrics_are_the_candidate_s(pipeline: FirstRun) -> None:
    comparison = pipeline.project.json("metrics/comparison.json")
    similarity = pipeline.project.json("metrics/similarity.json")
    assert similarity == {name: comparison["finetuned"][name] for name in similarity}
    assert set(FIGURES) <= set(similarity)


def test_the_verdict_says_that_the_judge_is_not_yet_tested(pipeline: FirstRun) -> None:
    verdict = pipeline.project.json("metrics/comparison.json")["finetuned"]["verdict"]
    assert verdict.startswith("this adapter: ")
    assert verdict.endswith("(judge not yet tested)")
    assert verdict in pipeline.output


def test_git_sees_the_small_results_and_no_weights(pipeline: FirstRun) -> None:
    paths = {line[3:].split("/")[0] for line in pipeline.git_status.splitlines()}
    assert paths == {"dvc.lock", "metrics", "plots"}


def test_a_second_run_runs_nothing(project: Project) -> None:
    result = project.run("dvc", "repro")
    assert ran(result.stdout) == set()
    assert "up to date" in result.stdout


def test_importing_the_package_dirties_no_stage(project: Project) -> None:
    project.run("python", "-c", "import blogtune.settings, stages.train, stages.compare")
    assert list(project.root.rglob("blogtune/**/__pycache__/*.pyc"))
    assert project.is_clean()


def test_running_a_stage_by_hand_gives_the_same_bytes(project: Project) -> None:
    project.run(*project.stage("compare"))
    assert project.is_clean()
    assert project.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.parametrize("command", ["dag", "metrics show", "plots show"])
def test_dvc_shows_what_there_is(project: Project, command: str) -> None:
    assert project.run("dvc", *command.split()).stdout.strip()


def test_there_are_three_plots(project: Project) -> None:
    project.run("dvc", "plots", "show")
    page = (project.root / "dvc_plots/index.html").read_text(encoding="utf-8")
    titles = set(re.findall(r'"(?:title|text)": "(Loss|Learning rate|Similarity)"', page))
    assert titles == {"Loss", "Learning rate", "Similarity"}
    assert page.count("vegaEmbed(") == len(titles)


def test_make_tells_the_verdict_and_the_examples(project: Project) -> None:
    assert "this adapter: " in project.make("verdict").stdout
    assert "best change: " in project.make("show").stdout


@pytest.mark.slow
def test_the_same_training_twice_gives_the_same_adapter(
    pipeline: FirstRun, project: Project
) -> None:
    adapter = "models/adapter/adapters.safetensors"
    (project.root / adapter).unlink()
    project.run(*project.stage("train"))
    digests = {
        hashlib.sha256((each.root / adapter).read_bytes()).hexdigest()
        for each in (pipeline.project, project)
    }
    assert len(digests) == 1
