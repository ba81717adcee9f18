"""Bases with quantized weights, as a laptop would train them."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from blogtune.common.errors import UserError
from blogtune.fusing.fuse import fuse
from blogtune.fusing.parity import Parity
from blogtune.models.loading import is_quantized, load_model, storage_dtype
from tests import tiny
from tests.fusing.conftest import fuse_params, make_adapter, measure, quantized

ADAPTED = [f"model.layers.{n}.self_attn.{part}_proj" for n in (2, 3) for part in "qkv"]


@pytest.fixture(scope="module")
def base(taught_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantized(taught_folder, tmp_path_factory.mktemp("quantized") / "base")


@pytest.fixture(scope="module", params=["lora", "dora"])
def adapter(
    base: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return make_adapter(base, tmp_path_factory.mktemp("adapter") / "adapter", kind=request.param)


def parity(base: Path, adapter: Path, folder: Path) -> Parity:
    adapted, shipped = load_model(base, mx.float32, adapter), load_model(folder, mx.float32)
    return measure(adapted, shipped, tiny.facts(), fuse_params())


def arrays(folder: Path) -> dict[str, Any]:
    return dict(mx.load(str(folder / "model.safetensors")).items())


def config(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text()))


def test_the_base_is_stored_in_the_type_of_its_scales(base: Path) -> None:
    assert storage_dtype(base) == mx.float16
    assert is_quantized(load_model(base, mx.float32).network)


def test_dequantized_it_is_a_plain_model_and_still_the_adapted_one(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    stored = fuse(base, adapter, tmp_path / "fused", fuse_params(dequantize=True))
    assert str(stored) == "float16, dequantized from 4 bits"
    assert not is_quantized(load_model(tmp_path / "fused", None).network)
    assert {array.dtype for array in arrays(tmp_path / "fused").values()} == {mx.float16}
    assert "quantization" not in config(tmp_path / "fused")
    measured = parity(base, adapter, tmp_path / "fused")
    measured.check(fuse_params())
    assert 0 < measured.mean_kl < 1e-5


def test_dequantized_layers_hold_what_the_quantized_ones_meant(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    fuse(base, adapter, tmp_path / "fused", fuse_params(dequantize=True, dtype="float32"))
    packed, plain = arrays(base), arrays(tmp_path / "fused")
    names = [name.removesuffix(".scales") for name in packed if name.endswith(".scales")]
    assert len(names) == 1 + 7 * tiny.BLOCKS
    for name in set(names) - set(ADAPTED):
        codes = np.asarray(packed[f"{name}.weight"])
        # Eight codes of 4 bits in each number, the lowest first.
        numbers = (codes[..., None] >> (4 * np.arange(8, dtype=np.uint32))) & 15
        groups = numbers.reshape(len(codes), -1, 32).astype(np.float64)
        scales, biases = (
            np.asarray(packed[f"{name}.{part}"], dtype=np.float64)[..., None]
            for part in ("scales", "biases")
        )
        meant = (groups * scales + biases).reshape(len(codes), -1)
        np.testing.assert_allclose(plain[f"{name}.weight"], meant, atol=1e-6, err_msg=name)


def test_quantized_again_the_adapted_layers_are_others_and_the_rest_is_the_same(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    stored = fuse(base, adapter, tmp_path / "fused", fuse_params(dequantize=False))
    assert str(stored) == "4 bits, scales in float16"
    before, after = arrays(base), arrays(tmp_path / "fused")
    assert before.keys() == after.keys()
    changed = {name.rpartition(".")[0] for name in before if (before[name] != after[name]).any()}
    assert changed == set(ADAPTED)
    assert config(tmp_path / "fused")["quantization"] == {"group_size": 32, "bits": 4}


def test_what_quantizing_again_costs_is_measured_and_stops_what_may_not_ship(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    fuse(base, adapter, tmp_path / "plain", fuse_params(dequantize=True))
    fuse(base, adapter, tmp_path / "again", fuse_params(dequantize=False))
    plain, again = (parity(base, adapter, tmp_path / name) for name in ("plain", "again"))
    # Of the weights as they lie there: before they were quantized they are the plain ones.
    assert again.mean_kl > 30 * plain.mean_kl > 0
    limit = fuse_params(max_kl=(plain.mean_kl * again.mean_kl) ** 0.5)
    plain.check(limit)
    with pytest.raises(UserError) as caught:
        again.check(limit)
    assert str(caught.value).endswith(
        "; quantizing again caused it; set fuse.dequantize: true, or raise the limits"
    )


@pytest.mark.parametrize("bits", [8, 6, 3])
def test_other_widths_are_dequantized_too(taught_folder: Path, tmp_path: Path, bits: int) -> None:
    base = quantized(taught_folder, tmp_path / "base", bits)
    adapter = make_adapter(base, tmp_path / "adapter")
    stored = fuse(base, adapter, tmp_path / "fused", fuse_params())
    assert str(stored) == f"float16, dequantized from {bits} bits"
    parity(base, adapter, tmp_path / "fused").check(fuse_params())
