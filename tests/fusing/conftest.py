"""An adapter on the taught model, and both fused."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from blogtune.common.records import Pair
from blogtune.fusing.fuse import fuse
from blogtune.fusing.params import FuseParams
from blogtune.fusing.parity import Parity, compare, expected
from blogtune.models.loading import LoadedModel, load_model
from blogtune.training.lora import apply_lora, save_adapter, target_keys
from tests import tiny


def fuse_params(**changes: Any) -> FuseParams:
    values = {"dtype": "auto", "dequantize": True, "parity_pairs": 4, "max_kl": 1e-4}
    return FuseParams(**{**values, "min_top1_agreement": 0.99, **changes})


def measure(
    adapted: LoadedModel, fused: LoadedModel, pairs: Sequence[Pair], params: FuseParams
) -> Parity:
    return compare(dict(expected(adapted, pairs, params)), fused, pairs, params)


def make_adapter(base: Path, folder: Path, seed: int = 5, **lora: Any) -> Path:
    """Write an adapter of random numbers that bends the model but does not break it."""
    network = load_model(base, mx.float32).network
    params = tiny.train_params(**lora).lora
    keys = target_keys(network, params)
    apply_lora(network, params)
    mx.random.seed(seed)
    weights = {
        # DoRA's lengths are bent a little, where 0 would be nothing at all.
        name: array * 1.1 if name.endswith(".m") else 0.1 * mx.random.normal(array.shape)
        for name, array in tree_flatten(network.trainable_parameters())
    }
    save_adapter(folder, weights, params, keys)
    return folder


def quantized(base: Path, folder: Path, bits: int = 4) -> Path:
    """Write the base with quantized weights, as mlx-lm's convert would; return the folder."""
    shutil.copytree(base, folder)
    network = load_model(base, mx.float16).network
    nn.quantize(network, group_size=32, bits=bits)
    config = json.loads((base / "config.json").read_text())
    tiny.write_weights(folder, network, **config, quantization={"group_size": 32, "bits": bits})
    return folder


@pytest.fixture(scope="session")
def adapter(taught_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(taught_folder, tmp_path_factory.mktemp("adapter") / "adapter")


@pytest.fixture(scope="session")
def fused(taught_folder: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fused") / "fused"
    fuse(taught_folder, adapter, folder, fuse_params())
    return folder
