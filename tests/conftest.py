"""What all tests share: one small BLAS thread, a tiny model, and the same one taught some facts."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Share the files out among processes, and begin with the longest part.

    Those are the tests on the finished pipeline, which is run once for all of them; with them those
    on several processes, because MLX's launcher knows one port.
    """
    items.sort(key=lambda item: "integration" not in item.path.parts)
    for item in items:
        together = "integration" in item.path.parts or item.path.name == "test_processes.py"
        group = "pipeline" if together else f"{item.path.parent.name}.{item.path.stem}"
        item.add_marker(pytest.mark.xdist_group(group))


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
