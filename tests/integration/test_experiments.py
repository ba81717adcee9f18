"""DVC's experiments and remotes work on this repository as they do on any."""

from pathlib import Path

import pytest

from tests.integration.project import LIGHT, Project, ran

IDENTITY = {"user.name": "someone", "user.email": "someone@example.org"}
TELL = "\nimport sys\n\nprint('code of', __file__, file=sys.stderr)\n"


@pytest.fixture(autouse=True)
def _identity(project: Project) -> None:
    """An experiment on a changed tree is a commit of somebody's."""
    for name, value in IDENTITY.items():
        project.run("git", "config", name, value)


def test_an_experiment_elsewhere_runs_the_code_of_that_tree(project: Project) -> None:
    project.append("blogtune/comparing/verdict.py", TELL)
    setting = ("-S", "compare.candidate=fused", "--single-item", "compare")
    told = project.run("dvc", "exp", "run", "--temp", *setting)
    (line,) = {line for line in told.stderr.splitlines() if line.startswith("code of ")}
    assert f"{project.root}/.dvc/tmp/exps/" in line
    assert (
        project.json("metrics/similarity.json")["mean"]
        == (project.json("metrics/comparison.json")["finetuned"]["mean"])
    )


@pytest.mark.slow
def test_an_experiment_runs_elsewhere_and_then_here(project: Project) -> None:
    project.set_all(LIGHT)
    project.repro("train")
    project.commit("light")
    adapter = project.root / "models/adapter/adapters.safetensors"
    before = adapter.read_bytes()
    elsewhere = project.run("dvc", "exp", "run", "--temp", "-S", "train.lora.rank=4")
    assert {"train", "fuse", "answer@finetuned", "compare"} <= ran(elsewhere.stdout)
    assert adapter.read_bytes() == before
    here = project.run("dvc", "exp", "run", "-S", "train.lora.rank=4")
    assert "train" not in ran(here.stdout)
    assert len(adapter.read_bytes()) < len(before)


@pytest.mark.slow
def test_what_was_pushed_to_a_folder_is_whole_elsewhere(project: Project, tmp_path: Path) -> None:
    project.run("dvc", "remote", "add", "-q", "-d", "folder", str(tmp_path / "remote"))
    project.commit("remote")
    project.run("dvc", "push")
    project.run("git", "clone", "-q", str(project.root), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone", project.home)
    clone.run("dvc", "pull")
    assert clone.repro() == set()
    assert clone.run("git", "status", "--porcelain").stdout == ""
