import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.utils import load
from transformers import AutoConfig, AutoTokenizer

from blogtune.errors import UserError
from blogtune.fusing.fuse import fuse
from blogtune.models.loading import load_model, storage_dtype
from tests import tiny

QUESTION = "What is the rank?"


def weights(folder: Path) -> dict[str, mx.array]:
    return {
        name: array
        for file in folder.glob("*.safetensors")
        for name, array in mx.load(str(file)).items()
    }


def test_the_adapted_weights_are_the_sum_rounded_once(
    taught_folder: Path, adapter: Path, fused: Path
) -> None:
    base, merged = weights(taught_folder), weights(fused)
    parts = mx.load(str(adapter / "adapters.safetensors"))
    assert merged.keys() == base.keys()
    for name, array in base.items():
        lora = name.removesuffix(".weight")
        expected = np.asarray(array, dtype=np.float64)
        if f"{lora}.lora_a" in parts:
            a, b = (np.asarray(parts[f"{lora}.lora_{x}"], dtype=np.float64) for x in "ab")
            expected = expected + 5.0 * (a @ b).T
        # Half a step of float16 at the most, and a little for the sum in float32.
        limit = np.maximum(np.abs(expected), 2.0**-14) * 2.0**-11 * 1.01
        error = np.abs(np.asarray(merged[name], dtype=np.float64) - expected)
        assert (error <= limit).all(), name


def test_what_was_not_adapted_stays_bit_by_bit(taught_folder: Path, fused: Path) -> None:
    base, merged = weights(taught_folder), weights(fused)
    changed = {name for name in base if not mx.array_equal(base[name], merged[name])}
    top = range(tiny.BLOCKS - 2, tiny.BLOCKS)
    assert changed == {
        f"model.layers.{n}.self_attn.{part}_proj.weight" for n in top for part in "qkv"
    }


def test_weights_keep_the_type_they_were_stored_in(fused: Path) -> None:
    assert storage_dtype(fused) == mx.float16
    assert {array.dtype for array in weights(fused).values()} == {mx.float16}


def test_fused_logits_are_near_the_adapted_ones(
    taught_folder: Path, adapter: Path, fused: Path
) -> None:
    tokens = mx.array([[1, 5, 6, 7, 8]])
    base = load_model(taught_folder, mx.float32).network(tokens)
    adapted = load_model(taught_folder, mx.float32, adapter).network(tokens)
    merged = load_model(fused, mx.float32).network(tokens)
    assert float(mx.abs(adapted - base).max()) > 0.5
    assert float(mx.abs(adapted - merged).max()) < 0.02


def test_stock_mlx_lm_loads_what_was_fused(fused: Path) -> None:
    network, tokenizer = load(str(fused))[:2]
    ours = load_model(fused, None).network
    tokens = mx.array([tokenizer.encode(QUESTION)])
    assert mx.array_equal(network(tokens), ours(tokens))


def test_config_and_tokenizer_stay_byte_by_byte(taught_folder: Path, fused: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (fused / name).read_bytes() == (taught_folder / name).read_bytes()


def test_transformers_reads_config_and_tokenizer(fused: Path) -> None:
    config = AutoConfig.from_pretrained(fused)
    assert (config.model_type, config.num_hidden_layers) == ("llama", tiny.BLOCKS)
    tokenizer = AutoTokenizer.from_pretrained(fused)
    turns = [{"role": "user", "content": QUESTION}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"


def test_a_base_in_parts_leaves_none_of_them_behind(
    taught_folder: Path, adapter: Path, fused: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(taught_folder, tmp_path / "base"))
    (base / "model.safetensors").unlink()
    whole = weights(taught_folder)
    files = {
        name: f"model-0000{1 + row % 2}-of-00002.safetensors" for row, name in enumerate(whole)
    }
    for file in set(files.values()):
        part = {name: array for name, array in whole.items() if files[name] == file}
        mx.save_safetensors(str(base / file), part, {"format": "pt"})
    index = {"metadata": {}, "weight_map": files}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    (base / "source.json").write_text('{"origin": "of the base"}')
    fuse(base, adapter, tmp_path / "fused")
    kept = {"config.json", "tokenizer.json", "tokenizer_config.json"}
    written = {"model.safetensors", "model.safetensors.index.json"}
    assert {path.name for path in (tmp_path / "fused").iterdir()} == kept | written
    expected = weights(fused)
    for name, array in weights(tmp_path / "fused").items():
        assert mx.array_equal(array, expected[name]), name


def test_a_quantized_base_is_refused_and_the_old_model_stays(
    tiny_folder: Path, adapter: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_folder, tmp_path / "base"))
    network = load_model(tiny_folder, mx.float32).network
    nn.quantize(network, group_size=32, bits=4)
    tiny.write_weights(base, network, quantization={"group_size": 32, "bits": 4})
    assert any("scales" in name for name, _ in tree_flatten(network.parameters()))
    (tmp_path / "fused").mkdir()
    with pytest.raises(UserError) as caught:
        fuse(base, adapter, tmp_path / "fused")
    assert str(caught.value) == f"{base}: quantized weights cannot be fused; use a float base"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "fused"]


def test_fusing_twice_gives_the_same_bytes(
    taught_folder: Path, adapter: Path, fused: Path, tmp_path: Path
) -> None:
    fuse(taught_folder, adapter, tmp_path / "again")
    for file in fused.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name
