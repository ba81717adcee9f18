import json
import re
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from blogtune.common.errors import UserError
from blogtune.models.loading import is_quantized, load_model, storage_dtype
from tests import tiny


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        pytest.param(mx.float32, mx.float32, id="float32"),
        pytest.param(mx.bfloat16, mx.bfloat16, id="bfloat16"),
        pytest.param(None, mx.float16, id="as stored"),
    ],
)
def test_a_model_computes_in_the_type_asked_for(
    tiny_folder: Path, asked: mx.Dtype | None, got: mx.Dtype
) -> None:
    model = load_model(tiny_folder, asked)
    assert model.network(mx.array([[1, 2]])).dtype == got
    assert not model.network.training


def test_the_storage_type_is_that_of_the_largest_weight(tiny_folder: Path, tmp_path: Path) -> None:
    assert storage_dtype(tiny_folder) == mx.float16
    norms, table = mx.ones((8,)), mx.zeros((8, 8), mx.bfloat16)
    mx.save_safetensors(str(tmp_path / "model-00001-of-00002.safetensors"), {"norm": norms})
    mx.save_safetensors(str(tmp_path / "model-00002-of-00002.safetensors"), {"table": table})
    assert storage_dtype(tmp_path) == mx.bfloat16


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "base"))


def refusal(folder: Path, adapter: Path | None = None) -> str:
    """The rest of the one line with which the folder is refused."""
    with pytest.raises(UserError) as caught:
        load_model(folder, mx.float32, adapter)
    start = f"{folder}: mlx-lm cannot load it: "
    assert str(caught.value).startswith(start)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(start)


def test_quantized_weights_are_recognised() -> None:
    network = tiny.network()
    assert not is_quantized(network)
    nn.quantize(network, group_size=32, bits=4)
    assert is_quantized(network)


def test_a_missing_folder_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_model(tmp_path / "base", None)
    assert str(caught.value) == f"{tmp_path / 'base'}: no model there; run `dvc repro`"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"model_type": "abacus"}, "Model type abacus not supported", id="unknown"),
        pytest.param({"num_hidden_layers": 5}, "Missing 9 parameters", id="weights missing"),
        pytest.param({"num_hidden_layers": 3}, "Received 9 parameters not in", id="weights over"),
        pytest.param({"model_type": None}, "KeyError: 'model_type'", id="no architecture"),
        pytest.param({"hidden_size": None}, "TypeError: .*'hidden_size'", id="no width"),
    ],
)
def test_a_config_that_does_not_fit_is_named_in_one_line(
    copy: Path, change: dict[str, object], message: str
) -> None:
    config = json.loads((copy / "config.json").read_text())
    changed = {k: v for k, v in {**config, **change}.items() if v is not None}
    (copy / "config.json").write_text(json.dumps(changed))
    assert re.search(message, refusal(copy))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("config.json", b"{", id="config cut off"),
        pytest.param("model.safetensors", b"1234567890", id="weights cut off"),
        pytest.param("model.safetensors", None, id="no weights"),
    ],
)
def test_a_broken_file_is_told_in_one_line(copy: Path, name: str, content: bytes | None) -> None:
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    assert refusal(copy)


def test_an_adapter_of_another_shape_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    keys = ["self_attn.q_proj"]
    config = {"num_layers": 1, "lora_parameters": {"rank": 2, "scale": 1.0, "dropout": 0.0}}
    config["lora_parameters"]["keys"] = keys  # type: ignore[index]
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    name = f"model.layers.{tiny.BLOCKS - 1}.self_attn.q_proj.lora_a"
    weights = {name: mx.zeros((tiny.WIDTH, 3))}
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"), weights)
    assert "does not match" in refusal(tiny_folder, tmp_path)


def test_a_missing_adapter_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    assert "adapter path does not exist" in refusal(tiny_folder, tmp_path / "adapter")


def test_weights_survive_the_way_to_disk_and_back(tiny_folder: Path) -> None:
    network = tiny.network()
    network.set_dtype(mx.float16)
    expected = dict(tree_flatten(network.parameters()))
    for name, array in tree_flatten(load_model(tiny_folder, None).network.parameters()):
        assert mx.array_equal(array, expected[name]), name
