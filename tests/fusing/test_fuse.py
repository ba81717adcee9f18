import json
import shutil
from functools import partial
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load, make_shards
from transformers import AutoConfig, AutoTokenizer

from blogtune.fusing.fuse import fuse
from blogtune.models.loading import load_model, storage_dtype
from tests import tiny
from tests.fusing.conftest import fuse_params

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
    fuse(base, adapter, tmp_path / "fused", fuse_params())
    kept = {"config.json", "tokenizer.json", "tokenizer_config.json"}
    written = {"model.safetensors", "model.safetensors.index.json"}
    assert {path.name for path in (tmp_path / "fused").iterdir()} == kept | written
    expected = weights(fused)
    for name, array in weights(tmp_path / "fused").items():
        assert mx.array_equal(array, expected[name]), name


def test_fusing_twice_gives_the_same_bytes(
    taught_folder: Path, adapter: Path, fused: Path, tmp_path: Path
) -> None:
    fuse(taught_folder, adapter, tmp_path / "again", fuse_params())
    for file in fused.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_weights_are_stored_in_the_type_that_is_asked_for(
    taught_folder: Path, adapter: Path, tmp_path: Path, dtype: str
) -> None:
    stored = fuse(taught_folder, adapter, tmp_path / "fused", fuse_params(dtype=dtype))
    assert str(stored) == stored.dtype == dtype
    assert {array.dtype for array in weights(tmp_path / "fused").values()} == {getattr(mx, dtype)}


def test_the_config_names_the_type_of_the_weights(
    taught_folder: Path, adapter: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(taught_folder, tmp_path / "base"))
    changed = json.loads((base / "config.json").read_text()) | {"torch_dtype": "float16"}
    (base / "config.json").write_text(json.dumps(changed))
    fuse(base, adapter, tmp_path / "fused", fuse_params(dtype="bfloat16"))
    got = json.loads((tmp_path / "fused/config.json").read_text())
    assert got == {**changed, "torch_dtype": "bfloat16"}


class Kilobytes(int):
    """A limit that mlx-lm, which shifts gigabytes to bytes, takes for kilobytes."""

    def __lshift__(self, _: int) -> int:
        return int(self) * 1024


def test_large_weights_lie_in_parts_with_an_index(
    taught_folder: Path,
    adapter: Path,
    fused: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit = partial(make_shards, max_file_size_gb=Kilobytes(64))
    monkeypatch.setattr("mlx_lm.utils.make_shards", limit)
    fuse(taught_folder, adapter, tmp_path / "fused", fuse_params())
    parts = sorted((tmp_path / "fused").glob("*.safetensors"))
    count = len(parts)
    assert count > 3
    names = [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]
    assert [part.name for part in parts] == names
    index = json.loads((tmp_path / "fused/model.safetensors.index.json").read_text())
    placed = {name: part.name for part in parts for name in mx.load(str(part))}
    assert index["weight_map"] == placed
    whole = weights(fused)
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in whole.values())
    for part in parts:
        # A part is full, or holds one array that is larger than the limit.
        arrays = mx.load(str(part)).values()
        assert len(arrays) == 1 or sum(array.nbytes for array in arrays) <= 64 * 1024
    assert_same_weights(tmp_path / "fused", fused)
    network, tokenizer = load(str(tmp_path / "fused"))[:2]
    tokens = mx.array([tokenizer.encode(QUESTION)])
    assert mx.array_equal(network(tokens), load_model(fused, None).network(tokens))


def assert_same_weights(one: Path, other: Path) -> None:
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    assert all(mx.array_equal(left[name], right[name]) for name in left)


REMOTE = {"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}


def with_remote_code(base: Path, folder: Path, **changes: object) -> Path:
    """A base whose configs would send transformers to Python code that lies beside them."""
    shutil.copytree(base, folder)
    for name in ("config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**values, "auto_map": REMOTE, **changes}))
    (folder / "modeling_own.py").write_text("raise SystemExit('it was run')\n")
    return folder


def test_no_code_comes_along_and_nothing_asks_for_it(
    taught_folder: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = with_remote_code(taught_folder, tmp_path / "base")
    fuse(base, adapter, tmp_path / "fused", fuse_params())
    assert list((tmp_path / "fused").glob("*.py")) == []
    told = capsys.readouterr().err
    for name in ("config.json", "tokenizer_config.json"):
        before, after = (json.loads((f / name).read_text()) for f in (base, tmp_path / "fused"))
        assert before == {**after, "auto_map": REMOTE}
        assert f"{name}: auto_map left out: transformers has this architecture itself\n" in told
    assert AutoConfig.from_pretrained(tmp_path / "fused").model_type == "llama"


def test_code_that_transformers_would_need_is_named_but_not_brought(
    taught_folder: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # mlx-lm takes this for a Llama; transformers has no such model.
    base = with_remote_code(taught_folder, tmp_path / "base", model_type="xverse")
    fuse(base, adapter, tmp_path / "fused", fuse_params())
    assert json.loads((tmp_path / "fused/config.json").read_text())["auto_map"] == REMOTE
    assert list((tmp_path / "fused").glob("*.py")) == []
    assert (
        "config.json: auto_map kept, but not the code that it names: "
        "transformers cannot load this model\n"
    ) in capsys.readouterr().err
