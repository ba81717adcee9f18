"""What all tests share: one small BLAS thread, a tiny model, and the same one taught some facts."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# A machine that is busy elsewhere is no reason to fail.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# A shell without job control starts `make test &` with SIGINT ignored, nohup too, and what is
# ignored stays so in every child: no Ctrl-C reached those that the tests start. What has a handler
# is the default again in a child; these processes go on ignoring it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, lambda *_: None)

# Else a GPU multiplies float32 numbers with 10 of their 23 bits, and nothing is the same to 1e-5.
os.environ.setdefault("MLX_ENABLE_TF32", "0")

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


# How long a campaign is where nobody says it: with --slow=all, and otherwise.
CAMPAIGNS = {"BLOGTUNE_KILLS": ("20", "3"), "BLOGTUNE_EXAMPLES": ("1000", "50")}

# Files of the finished pipeline and of several processes, these in one process, because MLX's
# launcher knows one port.
FIRST = ("integration/test_pipeline.py", "test_processes.py")
# Long, without the finished pipeline: the other process begins with them, if they are not left out.
SECOND = ("integration/test_profiles.py", "integration/test_architectures.py")


class ByFile(LoadScopeScheduling):
    """Shares the files out among processes, in their order; those of FIRST are one.

    (The marker xdist_group would say so; xdist 3.8 does not read it with pytest 9.2.)
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return "first" if file.endswith(FIRST) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "which slow tests to run: all (the default), the first case of each, or none"
    parser.addoption("--slow", choices=("all", "sample", "none"), default="all", help=told)


def pytest_configure(config: pytest.Config) -> None:
    for name, (whole, sample) in CAMPAIGNS.items():
        os.environ.setdefault(name, whole if config.getoption("slow") == "all" else sample)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take the slow tests that are wanted; make the pipeline first, and use it last.

    So nothing waits for it.
    """
    wanted = config.getoption("slow")
    if wanted != "all":
        slow = [item for item in items if item.get_closest_marker("slow")]
        # The first of each is what the last to be written leaves.
        first = {item.nodeid.split("[")[0]: item for item in reversed(slow)}
        kept = list(first.values()) if wanted == "sample" else []
        left_out = [item for item in slow if item not in kept]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    path = item.path.as_posix()
    if path.endswith(FIRST):
        return 0 if "integration" in path else 1
    if path.endswith(SECOND):
        return 2
    if "integration" not in path:
        return 3
    return 4 if path.endswith("test_ollama.py") else 5


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
