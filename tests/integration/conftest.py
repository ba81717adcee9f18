"""The whole pipeline, run once on the profile tiny, and copies of what it left."""

import fcntl
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.project import Project, create


@dataclass(frozen=True)
class FirstRun:
    """What the first `dvc repro` of a fresh clone printed, and what git saw of it."""

    project: Project
    output: str
    git_status: str


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> FirstRun:
    """A finished run, its results committed. Not to be written to.

    Of several processes that run tests the first makes it for all.
    """
    own = tmp_path_factory.getbasetemp()
    shared = (own if worker_id == "master" else own.parent) / "pipeline"
    shared.mkdir(exist_ok=True)
    project, said = Project(shared / "tree", tmp_path_factory.mktemp("home")), shared / "said.json"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            said.write_text(json.dumps(_first_run(project)))
    output, status = json.loads(said.read_text())
    return FirstRun(project, output, status)


def _first_run(project: Project) -> tuple[str, str]:
    create(project.root, project.home)
    output = project.run("dvc", "repro").stdout
    status = project.run("git", "status", "--porcelain").stdout
    project.commit("results")
    return output, status


@pytest.fixture
def project(pipeline: FirstRun, tmp_path: Path) -> Project:
    """A copy of the finished run, for one test."""
    return pipeline.project.copy(tmp_path / "project")
