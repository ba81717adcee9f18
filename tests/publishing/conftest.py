"""The loopback hub, and a small project to publish from."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.publishing import project as projects
from tests.publishing.hub import Hub, serve


@pytest.fixture(scope="session")
def committed(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with everything committed. Not to be written to."""
    return projects.create(tmp_path_factory.mktemp("publishing") / "project", tiny_folder)


@pytest.fixture
def project(committed: Path, tmp_path: Path) -> Path:
    """A copy of it, for one test."""
    return Path(shutil.copytree(committed, tmp_path / "project", symlinks=True))


@pytest.fixture(scope="session")
def served() -> Iterator[Hub]:
    with serve() as hub:
        yield hub


@pytest.fixture
def hub(served: Hub) -> Hub:
    """The hub on loopback, empty and without a fault."""
    served.reset()
    return served
