"""The whole pipeline with the real dvc, model and judge, on the profile tiny."""

import csv
import hashlib
import json
import re

import numpy as np
import pytest

from tests.integration.conftest import FirstRun
from tests.integration.project import Project, ran

MODELS = ("base", "finetuned", "fused")
BASELINES = ("echo", "base_cut", "random_training_answer", "nearest_training_answer")
FIGURES = ("mean", "median", "sd", "good", "poor", "coverage", "partial_similarity", "empty", "cut")
STAGES = {
    *("fetch", "prepare", "train", "fuse", "baselines", "judge", "check_judge", "compare"),
    "probe",
    *(f"answer@{name}" for name in MODELS),
}


def test_every_stage_runs(pipeline: FirstRun) -> None:
    assert ran(pipeline.output) == STAGES


def test_the_metrics_have_their_stable_names(pipeline: FirstRun) -> None:
    comparison = pipeline.project.json("metrics/comparison.json")
    for name in (*MODELS, *BASELINES):
        assert set(FIGURES) <= set(comparison[name])
        for difference in () if name == "base" else ("difference", "partial_similarity_difference"):
            assert {"mean", "low", "high"} <= set(comparison[name][difference])


def test_the_similarity_metrics_are_the_candidate_s(pipeline: FirstRun) -> None:
    comparison = pipeline.project.json("metrics/comparison.json")
    similarity = pipeline.project.json("metrics/similarity.json")
    assert similarity == {name: comparison["finetuned"][name] for name in similarity}
    assert set(FIGURES) <= set(similarity)


def test_the_verdict_says_that_the_judge_was_tested_and_what_it_cannot_see(
    pipeline: FirstRun,
) -> None:
    verdict = pipeline.project.json("metrics/comparison.json")["finetuned"]["verdict"]
    judge = pipeline.project.json("metrics/judge.json")
    assert verdict.startswith("this adapter: ")
    assert "negation" in judge["blind_spots"].split(", ")
    # The profile has ten posts, with a paraphrase each.
    said = (
        f"judge passed its test with only 10 paraphrases; known blind spots: {judge['blind_spots']}"
    )
    assert verdict.endswith(f"judged by cosine ({said})")
    assert verdict in pipeline.output


def test_the_embedding_judge_passes_its_test(pipeline: FirstRun) -> None:
    judge = pipeline.project.json("metrics/judge.json")
    assert (judge["fit"], judge["reasons"], judge["untested"]) == (True, "", "")
    assert (judge["method"], judge["right"], judge["paraphrases"]) == ("cosine", "paraphrase", 10)
    assert judge["unmatched_paraphrases"] == 60
    assert judge["auc_against"]["other_post"] >= 0.95
    assert judge["similarity"]["identity"]["mean"] > judge["similarity"]["paraphrase"]["mean"]
    said = (
        f"judge passed its test with only 10 paraphrases; known blind spots: {judge['blind_spots']}"
    )
    assert f"cosine: {said}" in pipeline.output


def test_what_the_models_know_is_measured_and_told(pipeline: FirstRun, project: Project) -> None:
    knowledge = pipeline.project.json("metrics/knowledge.json")
    assert (
        knowledge["questions"] - knowledge["without_distractors"] == knowledge["all"]["questions"]
    )
    assert {"mean", "low", "high"} == set(knowledge["all"]["difference"])
    assert 0.3 <= knowledge["all"]["chance"] <= 0.5
    (line,) = (each for each in pipeline.output.splitlines() if each.startswith("knows: "))
    assert f"chance {knowledge['all']['chance']:.0%})" in line
    assert line.split(" (")[0] in project.make("verdict").stdout


def test_an_unfit_judge_does_not_stop_the_pipeline(project: Project) -> None:
    project.set(judge__check__min_auc=1.0)
    assert project.repro() >= {"check_judge", "compare"}
    judge = project.json("metrics/judge.json")
    assert (judge["fit"], judge["reasons"].split()[0]) == (False, "AUC")
    verdict = project.json("metrics/comparison.json")["finetuned"]["verdict"]
    told = f"this adapter: no verdict: the judge failed its test ({judge['reasons']}); similarity "
    assert verdict.startswith(told)
    assert "the judge failed its test" in project.make("judge").stdout


def test_data_without_paraphrases_get_an_easy_test_that_says_so(project: Project) -> None:
    (project.root / "data/paraphrases.jsonl").write_text("")
    assert project.repro() == {"check_judge", "compare"}
    verdict = project.json("metrics/comparison.json")["finetuned"]["verdict"]
    assert "(judge passed an easy test without paraphrases; known blind spots: " in verdict


def test_git_sees_the_small_results_and_no_weights(pipeline: FirstRun) -> None:
    paths = {line[3:].split("/")[0] for line in pipeline.git_status.splitlines()}
    assert paths == {"dvc.lock", "metrics", "plots"}


def test_a_second_run_runs_nothing(project: Project) -> None:
    result = project.run("dvc", "repro")
    assert ran(result.stdout) == set()
    assert "up to date" in result.stdout


def test_importing_the_package_dirties_no_stage(project: Project) -> None:
    project.run("python", "-c", "import blogtune.project.settings, stages.train, stages.compare")
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
    assert "judge passed its test" in project.make("judge").stdout


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


@pytest.mark.slow
def test_processes_of_a_host_file_train_as_one_does(project: Project) -> None:
    """Both hosts are this machine; ssh to another one is mlx.launch's."""
    # Each process drops others of the adapter's inputs.
    project.set(train__lora__dropout=0.0)
    project.run(*project.stage("train"))
    alone = losses(project)
    hosts = [{"ssh": "127.0.0.1", "ips": ["127.0.0.1"]}] * 2
    (project.root / "hosts.json").write_text(json.dumps(hosts))
    project.set(runtime__processes="hosts.json")
    project.run(*project.stage("train"))
    assert len(alone) > 1
    np.testing.assert_allclose(losses(project), alone, rtol=1e-3)
    project.set(train__lora__layers=99)
    project.run(*project.stage("train"), fails=True)


def losses(project: Project) -> list[list[float]]:
    with (project.root / "plots/training.csv").open() as file:
        return [[float(value) for value in row] for row in list(csv.reader(file))[1:]]
