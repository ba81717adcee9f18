"""What all tests share: one small BLAS thread, a tiny model, and the same one taught some facts."""

import os
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# A machine that is busy elsewhere is no reason to fail.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# A matrix of 64 columns is not worth a second thread: where other processes run, it takes five
# times as long. Read when the library is loaded; what a test starts chooses for itself.
_chosen = os.environ.get("OPENBLAS_NUM_THREADS")
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import blogtune  # noqa: E402

assert blogtune
if _chosen is None:
    del os.environ["OPENBLAS_NUM_THREADS"]
else:
    os.environ["OPENBLAS_NUM_THREADS"] = _chosen


# In tests/integration, but with pipelines of their own.
OF_THEIR_OWN = ("test_architectures.py", "test_hub.py", "test_profiles.py")


class ByFile(LoadScopeScheduling):
    """Shares the files out among processes, but leaves to one what one finished pipeline serves.

    With it go the tests on several processes, because MLX's launcher knows one port. (The marker
    xdist_group would say so; xdist 3.8 does not read it with pytest 9.2.)
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        together = "/integration/" in file or file.endswith("test_processes.py")
        together = together and not file.endswith(OF_THEIR_OWN)
        return "pipeline" if together else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest part; the other process has the fast ones."""
    items.sort(key=lambda item: "integration" not in item.path.parts)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random float16 Llama of 4 blocks with a ChatML tokenizer. Not to be written to."""
    from tests import tiny

    return tiny.save_model(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def taught_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, having learned `tiny.FACTS` by heart. Not to be written to."""
    from tests import tiny

    folder = tmp_path_factory.mktemp("taught") / "base"
    tiny.save_taught(tiny_folder, folder)
    return folder
