"""`make diff` gives the right figures or one clear line, whatever the repository is like."""

import json
import shutil
from pathlib import Path

import pytest

from tests.integration.project import Project

FILE = "metrics/similarity.json"


def means(project: Project, *arguments: str) -> tuple[float, float]:
    """The mean similarity before and after, as `make diff` tells it."""
    told = json.loads(project.make("diff", "FORMAT=--json", *arguments).stdout)
    assert set(told) == {FILE}
    return told[FILE]["mean"]["old"], told[FILE]["mean"]["new"]


def right(project: Project) -> tuple[float, float]:
    comparison = project.json("metrics/comparison.json")
    return comparison["base"]["mean"], comparison["finetuned"]["mean"]


def errors(project: Project, *arguments: str) -> list[str]:
    """What a failing `make diff` prints, without make's own line."""
    told = project.make("diff", *arguments, fails=True).stderr.splitlines()
    assert told[-1].startswith("make: ")
    return told[:-1]


def shallow_clone(project: Project, root: Path) -> Project:
    """A clone of the last commit alone, with the cache's data."""
    project.run("git", "clone", "-q", "--depth=1", f"file://{project.root}", str(root))
    clone = Project(root, project.home)
    clone.run("dvc", "cache", "dir", "--local", str(project.root / ".dvc/cache"))
    clone.run("dvc", "checkout")
    return clone


def test_it_tells_base_against_finetuned_twice_in_a_row(project: Project) -> None:
    table = project.make("diff").stdout
    assert table.splitlines()[0].split() == ["Path", "Metric", "base", "workspace", "Change"]
    assert means(project) == right(project)
    assert project.run("git", "status", "--porcelain").stdout == ""


def test_a_changed_tree_is_compared_as_it_is(project: Project) -> None:
    project.append("README.md", "\nchanged\n")
    project.set(train__iterations=11)
    result = project.make("diff", "FORMAT=--json")
    told = json.loads(result.stdout)[FILE]["mean"]
    assert (told["old"], told["new"]) == right(project)
    assert result.stderr.count("Not up to date") == 1
    assert (project.root / "README.md").read_text(encoding="utf-8").endswith("\nchanged\n")


def test_another_format_is_refused(project: Project) -> None:
    (told,) = errors(project, "FORMAT=--precision 2")
    assert told == "error: FORMAT=--precision 2: must be --json, --md or empty"


@pytest.mark.parametrize("name", ["BASE", "FORMAT"])
def test_what_a_person_sets_is_never_a_shell_s_line(project: Project, name: str) -> None:
    errors(project, f'{name}="; touch reached; "')
    assert not (project.root / "reached").exists()


def test_a_branch_named_base_is_not_taken_for_the_model(project: Project) -> None:
    project.run("git", "branch", "base", "HEAD~1")
    assert means(project) == right(project)


def test_another_revision_is_compared_with_this_tree(project: Project) -> None:
    project.set(compare__good=0.5)
    project.repro()
    told = json.loads(project.make("diff", "BASE=HEAD", "FORMAT=--json").stdout)
    assert set(told[FILE]) == {"good"}
    assert told[FILE]["good"]["new"] == project.json(FILE)["good"]


def test_no_difference_is_said(project: Project) -> None:
    project.commit("nothing new")
    assert project.make("diff", "BASE=HEAD~1").stdout == "no differences\n"


def test_figures_of_another_tree_are_called_so(project: Project) -> None:
    stale = "Not up to date: these are the figures of the last 'dvc repro'.\n"
    for target in ("verdict", "judge", "show"):
        assert stale not in project.make(target).stderr
    project.set(train__iterations=11)
    for target in ("verdict", "judge", "show"):
        assert project.make(target).stderr == stale


def test_without_a_commit_it_says_what_to_do(project: Project) -> None:
    shutil.rmtree(project.root / ".git")
    project.run("git", "init", "-q")
    (line,) = errors(project)
    assert line.startswith("error: nothing to compare with before the first commit")


def test_an_unknown_revision_is_named(project: Project) -> None:
    (line,) = errors(project, "BASE=origin/nowhere")
    assert line == "error: BASE=origin/nowhere: no such revision, here or at origin"


def limit_that_parts(project: Project) -> float:
    """A limit of good answers that other shares of the two models' answers reach."""
    scores = {
        model: [
            json.loads(line)["similarity"]
            for line in (project.root / f"data/judgements/{model}.jsonl").read_text().splitlines()
        ]
        for model in ("base", "finetuned")
    }
    limits = sorted(score for score in scores["base"] if 0.35 < score < 0.69)
    return next(
        limit
        for limit in limits
        if len({sum(score >= limit for score in model) for model in scores.values()}) > 1
    )


@pytest.mark.slow
def test_after_a_commit_the_new_figures_are_compared(project: Project) -> None:
    project.make("diff")
    project.set(compare__good=limit_that_parts(project))
    project.repro()
    project.commit("another limit")
    told = json.loads(project.make("diff", "FORMAT=--json").stdout)[FILE]
    comparison = project.json("metrics/comparison.json")
    assert told["good"]["old"] == comparison["base"]["good"]
    assert told["good"]["new"] == comparison["finetuned"]["good"]


@pytest.mark.slow
def test_a_shallow_clone_is_completed(project: Project, tmp_path: Path) -> None:
    clone = shallow_clone(project, tmp_path / "clone")
    assert means(clone) == right(project)


@pytest.mark.slow
def test_a_shallow_clone_that_cannot_be_completed_says_so(project: Project, tmp_path: Path) -> None:
    clone = shallow_clone(project, tmp_path / "clone")
    clone.run("git", "remote", "set-url", "origin", str(tmp_path / "nowhere"))
    assert errors(clone)[-1].startswith("error: this clone is shallow")


@pytest.mark.slow
def test_a_shallow_clone_fetches_the_revision(project: Project, tmp_path: Path) -> None:
    project.run("git", "branch", "before", "HEAD~1")
    clone = shallow_clone(project, tmp_path / "clone")
    told = json.loads(clone.make("diff", "BASE=origin/before", "FORMAT=--json").stdout)
    assert told[FILE]["mean"]["new"] == right(project)[1]
