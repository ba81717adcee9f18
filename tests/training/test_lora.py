import json
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.utils import load

from blogtune.common.errors import UserError
from blogtune.training.lora import apply_lora, expected_parameters, save_adapter, target_keys
from blogtune.training.params import LoraParams
from tests import tiny
from tests.training.architectures import NAMES, build

QUERY_KEY_VALUE = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": None,
    "vocab_size": 49152,
}
PHI3_MINI = {
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32064,
    "tie_word_embeddings": False,
}

# Width, blocks, query heads, key heads, size of a head, as published.
LLAMA32, QWEN25, QWEN3, MISTRAL, GEMMA2, PHI4_MINI = (
    {
        "hidden_size": width,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": size,
    }
    for width, blocks, heads, key_heads, size in (
        (2048, 16, 32, 8, 64),
        (896, 24, 14, 2, 64),
        (1024, 28, 16, 8, 128),
        (4096, 32, 32, 8, 128),
        (2304, 26, 8, 4, 256),
        (3072, 32, 24, 8, 128),
    )
)


def lora(
    layers: int = 2,
    rank: int = 4,
    kind: Literal["lora", "dora"] = "lora",
    targets: Literal["qkv", "all"] | list[str] = "qkv",
) -> LoraParams:
    return LoraParams(kind=kind, layers=layers, targets=targets, rank=rank, scale=5.0, dropout=0.1)


class Block(nn.Module):
    """A block of layers that no known architecture calls so."""

    def __init__(self) -> None:
        super().__init__()
        self.mixer, self.out = nn.Linear(8, 8), nn.Linear(8, 8)


class Strange(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [Block(), Block()]


@pytest.mark.parametrize(
    ("name", "shape", "layers", "count"),
    [
        pytest.param("llama", SMOLLM2, 8, 172_032, id="SmolLM2-135M"),
        pytest.param("phi3", PHI3_MINI, 8, 786_432, id="Phi-3 mini"),
        pytest.param("phi3", PHI3_MINI, 32, 3_145_728, id="Phi-3 mini, every block"),
        # 8 blocks x rank 8 x the sum over query, key and value of (inputs + outputs).
        pytest.param("llama", LLAMA32, 8, 64 * (4096 + 2 * 2560), id="Llama 3.2 1B"),
        pytest.param("qwen2", QWEN25, 8, 64 * (1792 + 2 * 1024), id="Qwen2.5 0.5B"),
        pytest.param("qwen3", QWEN3, 8, 64 * (3072 + 2 * 2048), id="Qwen3 0.6B"),
        pytest.param("llama", MISTRAL, 8, 64 * (8192 + 2 * 5120), id="Mistral 7B"),
        pytest.param("gemma2", GEMMA2, 8, 64 * (4352 + 2 * 3328), id="Gemma 2 2B"),
        pytest.param("phi3", PHI4_MINI, 8, 64 * (3072 + 5120), id="Phi-4 mini"),
    ],
)
def test_the_known_counts_come_out(
    name: str, shape: dict[str, Any], layers: int, count: int
) -> None:
    # MLX computes no weight before it is asked for, so these networks take no memory.
    network = build(name, **shape)
    assert expected_parameters(network, lora(layers, rank=8)) == count
    assert apply_lora(network, lora(layers, rank=8)) == count


@given(layers=st.integers(1, tiny.BLOCKS), rank=st.integers(1, 16))
@settings(max_examples=10)
def test_the_count_is_rank_times_inputs_and_outputs(layers: int, rank: int) -> None:
    network = tiny.network()
    narrow = tiny.WIDTH * tiny.KEY_HEADS // tiny.HEADS
    each = rank * ((tiny.WIDTH + tiny.WIDTH) + 2 * (tiny.WIDTH + narrow))
    assert apply_lora(network, lora(layers, rank)) == layers * each
    trained = dict(tree_flatten(network.trainable_parameters()))
    assert sum(array.size for array in trained.values()) == layers * each


def test_only_query_key_and_value_of_the_top_blocks_are_adapted() -> None:
    network = tiny.network()
    apply_lora(network, lora(layers=3))
    adapted = {name for name, module in network.named_modules() if isinstance(module, LoRALinear)}
    assert adapted == {f"model.layers.{n}.{key}" for n in (1, 2, 3) for key in QUERY_KEY_VALUE}
    names = [name for name, _ in tree_flatten(network.trainable_parameters())]
    assert all(name.endswith(("lora_a", "lora_b")) for name in names)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        pytest.param("llama", QUERY_KEY_VALUE, id="apart"),
        pytest.param("phi3", ["self_attn.qkv_proj"], id="fused"),
        pytest.param("gpt2", ["attn.c_attn"], id="gpt2"),
        pytest.param("gpt_neox", ["attention.query_key_value"], id="gpt_neox"),
    ],
)
def test_each_architecture_has_its_own_names(name: str, keys: list[str]) -> None:
    assert target_keys(build(name), lora()) == keys


def test_other_layers_are_named_by_the_last_part_of_their_paths() -> None:
    network = tiny.network()
    paths = ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj"]
    paths += [f"self_attn.{name}_proj" for name in "koqv"]
    assert target_keys(network, lora(targets="all")) == paths
    assert target_keys(network, lora(targets=["o_proj", "up_proj"])) == [
        "self_attn.o_proj",
        "mlp.up_proj",
    ]
    # 4 * (64 + 64) and 4 * (64 + 128) in each of two blocks.
    assert apply_lora(network, lora(targets=["o_proj", "up_proj"])) == 2 * (512 + 768)


def test_a_name_that_several_layers_bear_means_all_of_them() -> None:
    network = tiny.network()
    for block in network.layers:
        block.shared_expert = nn.Module()
        block.shared_expert.up_proj = nn.Linear(tiny.WIDTH, 32, bias=False)
    assert target_keys(network, lora(targets=["up_proj", "q_proj"])) == [
        "mlp.up_proj",
        "shared_expert.up_proj",
        "self_attn.q_proj",
    ]


@pytest.mark.parametrize(("targets", "said"), [(["q_proj", "wo"], "wo"), ([], "none named")])
def test_layers_that_are_not_there_are_refused(targets: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        apply_lora(tiny.network(), lora(targets=targets))
    assert str(caught.value) == (
        f"train.lora.targets: {said}, but the model's blocks have down_proj, gate_proj, k_proj, "
        "o_proj, q_proj, up_proj, v_proj; name some of those, or take qkv or all"
    )


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("name", NAMES)
def test_fresh_adapters_change_nothing(name: str, kind: Literal["lora", "dora"]) -> None:
    network = build(name)
    network.eval()
    tokens = mx.array([[5, 6, 7]])
    before = network(tokens)
    apply_lora(network, lora(kind=kind))
    # DoRA divides by the length that it multiplies with.
    assert mx.allclose(network(tokens), before, rtol=0, atol=1e-5 if kind == "dora" else 0)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_quantized_network_counts_like_a_float_one(kind: Literal["lora", "dora"]) -> None:
    network = tiny.network()
    expected = expected_parameters(network, lora(kind=kind))
    nn.quantize(network, group_size=32, bits=4)
    assert apply_lora(network, lora(kind=kind)) == expected


def test_dora_trains_one_number_more_for_each_output() -> None:
    narrow = tiny.WIDTH * tiny.KEY_HEADS // tiny.HEADS
    ordinary = expected_parameters(tiny.network(), lora())
    assert apply_lora(tiny.network(), lora(kind="dora")) == ordinary + 2 * (tiny.WIDTH + 2 * narrow)


def test_a_network_without_query_key_and_value_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        apply_lora(Strange(), lora())
    assert str(caught.value) == (
        "model: no query, key and value layers found among mixer, out; "
        "name the layers to adapt in train.lora.targets"
    )


def test_more_layers_than_blocks_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        apply_lora(tiny.network(blocks=2), lora(layers=3))
    assert str(caught.value) == "train.lora.layers: 3, but the model has 2 blocks"


def test_adapters_that_land_elsewhere_are_noticed() -> None:
    network = tiny.network()
    # mlx-lm applies the keys to the whole network as well as to its blocks.
    network.self_attn = nn.Module()
    network.self_attn.q_proj = nn.Linear(tiny.WIDTH, tiny.WIDTH)
    with pytest.raises(UserError, match=r"parameters became trainable where .* were meant"):
        apply_lora(network, lora())


def test_a_saved_adapter_loads_with_stock_mlx_lm(tiny_folder: Path, tmp_path: Path) -> None:
    network = load(str(tiny_folder))[0]
    apply_lora(network, lora())
    mx.random.seed(1)
    weights = {
        name: mx.random.normal(array.shape)
        for name, array in tree_flatten(network.trainable_parameters())
    }
    network.load_weights(list(weights.items()), strict=False)
    network.eval()
    save_adapter(tmp_path / "adapter", weights, lora(), QUERY_KEY_VALUE)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["lora_parameters"]["keys"] == QUERY_KEY_VALUE
    stock = load(str(tiny_folder), adapter_path=str(tmp_path / "adapter"))[0]
    tokens = mx.array([[5, 6, 7, 8]])
    assert mx.array_equal(stock(tokens), network(tokens))
    assert not mx.array_equal(stock(tokens), load(str(tiny_folder))[0](tokens))
