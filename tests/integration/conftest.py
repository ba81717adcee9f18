"""The whole pipeline, run once on the profile tiny, and copies of what it left."""

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
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    """A finished run, its results committed. Not to be written to."""
    project = create(tmp_path_factory.mktemp("pipeline"), tmp_path_factory.mktemp("home"))
    output = project.run("dvc", "repro").stdout
    status = project.run("git", "status", "--porcelain").stdout
    project.commit("results")
    return FirstRun(project, output, status)


@pytest.fixture
def project(pipeline: FirstRun, tmp_path: Path) -> Project:
    """A copy of the finished run, for one test."""
    return pipeline.project.copy(tmp_path / "project")
