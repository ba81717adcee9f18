"""Each family's tiny model, trained and fused: what the stages would leave."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import pytest

from blogtune.common.records import Pair
from blogtune.fusing.fuse import fuse
from blogtune.models.loading import LoadedModel, load_model
from blogtune.training.loop import Training, train
from blogtune.training.params import TrainParams
from blogtune.training.results import write_results
from tests import tiny
from tests.architectures.families import FAMILIES, Family, save, teach
from tests.fusing.conftest import fuse_params

# The facts again, each with another one's answer.
PAIRS = [
    tiny.pair(f"p{row}", question, list(tiny.FACTS.values())[row - 1])
    for row, question in enumerate(tiny.FACTS)
]


@dataclass(frozen=True)
class Trained:
    """The folders that training and fusing left, and what training returned."""

    name: str
    family: Family
    base: Path
    adapter: Path
    fused: Path
    result: Training

    def load(self, *, adapted: bool = False) -> LoadedModel:
        return load_model(self.base, mx.float32, self.adapter if adapted else None)


def train_params() -> TrainParams:
    return tiny.train_params(iterations=6, evaluate_every=3, dropout=0.0, activation_cache="memory")


def trained(name: str, root: Path, pairs: list[Pair]) -> Trained:
    """Teach a random model of that family the facts, train an adapter on `pairs`, and fuse."""
    base = save(root / "base", FAMILIES[name])
    teach(base)
    params = train_params()
    model = load_model(base, mx.float32)
    result = train(model, pairs, pairs, params, root / "checkpoints", tiny.ALONE)
    write_results(result, params, root / "adapter", root / "metrics", root / "plots")
    assert result.checkpoints is not None
    result.checkpoints.remove()
    fuse(base, root / "adapter", root / "fused", fuse_params())
    return Trained(name, FAMILIES[name], base, root / "adapter", root / "fused", result)


@pytest.fixture(scope="session")
def make_trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """Any of the seven by name, made once."""
    made: dict[str, Trained] = {}

    def make(name: str) -> Trained:
        if name not in made:
            made[name] = trained(name, tmp_path_factory.mktemp(name), PAIRS)
        return made[name]

    return make


# The two that are least like a Llama are worth the time of every run.
@pytest.fixture(
    scope="session",
    params=[
        pytest.param(name, marks=() if name in ("phi3", "gemma2") else pytest.mark.slow)
        for name in FAMILIES
    ],
)
def family(request: pytest.FixtureRequest, make_trained: Callable[[str], Trained]) -> Trained:
    """One of the seven. Not to be written to."""
    return make_trained(request.param)
