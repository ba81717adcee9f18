"""An adapter on the taught model, and both fused."""

from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from blogtune.fusing.fuse import fuse
from blogtune.models.loading import load_model
from blogtune.training.lora import apply_lora, save_adapter, target_keys
from tests import tiny


def make_adapter(base: Path, folder: Path, seed: int = 5) -> Path:
    """Write an adapter of random numbers that bends the model but does not break it."""
    network = load_model(base, mx.float32).network
    params, keys = tiny.train_params().lora, target_keys(network, "qkv")
    apply_lora(network, params)
    mx.random.seed(seed)
    weights = {
        name: 0.1 * mx.random.normal(array.shape)
        for name, array in tree_flatten(network.trainable_parameters())
    }
    save_adapter(folder, weights, params, keys)
    return folder


@pytest.fixture(scope="session")
def adapter(taught_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(taught_folder, tmp_path_factory.mktemp("adapter") / "adapter")


@pytest.fixture(scope="session")
def fused(taught_folder: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fused") / "fused"
    fuse(taught_folder, adapter, folder)
    return folder
