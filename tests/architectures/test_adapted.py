"""All linear layers are all: counted by the shapes of the stored weights, in each kind of block."""

import math
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from blogtune.common.errors import UserError
from blogtune.fusing.fuse import fuse
from blogtune.models.loading import LoadedModel, load_model
from blogtune.training.loop import Training, train
from blogtune.training.lora import apply_lora, not_adaptable, target_keys
from blogtune.training.params import TrainParams
from tests import tiny
from tests.architectures.kinds import KINDS, build, save
from tests.fusing.conftest import fuse_params, make_adapter, measure

RANK = 3
TOP = 3


def params(**changes: object) -> TrainParams:
    return tiny.train_params(**{"layers": TOP, "targets": "all", "rank": RANK, **changes})


def counted(weights: dict[str, mx.array], blocks: int, left_out: Sequence[str]) -> int:
    """rank * (inputs + outputs) of every matrix in the top blocks, each expert's alone."""
    total = 0
    for name, weight in weights.items():
        path = name.split(".layers.")[-1].split(".")
        inside = ".layers." in name and int(path[0]) >= blocks - TOP
        if (
            inside
            and weight.ndim > 1
            and name.endswith(".weight")
            and not name.endswith(tuple(left_out))
        ):
            *experts, outputs, inputs = weight.shape
            total += math.prod(experts) * RANK * (inputs + outputs)
    return total


@pytest.mark.parametrize("name", KINDS)
def test_adapted_parameters_are_those_that_the_stored_shapes_give(
    name: str, tmp_path: Path
) -> None:
    kind = KINDS[name]
    folder = save(tmp_path / "base", kind)
    weights = dict(mx.load(str(folder / "model.safetensors")))
    network = load_model(folder, mx.float32).network
    expected = counted(weights, len(network.layers), kind.left_out)
    left = not_adaptable(network, params().lora)
    assert {f"{path}.weight" for path in left} == {
        name.split(".layers.")[1].split(".", 1)[1]
        for name in weights
        if kind.left_out and name.endswith(kind.left_out)
    }
    assert apply_lora(network, params().lora) == expected
    trained = dict(tree_flatten(network.trainable_parameters()))
    assert sum(array.size for array in trained.values()) == expected


@pytest.mark.parametrize("name", KINDS)
def test_the_fused_model_of_every_kind_is_the_adapted_one(name: str, tmp_path: Path) -> None:
    base = save(tmp_path / "base", KINDS[name])
    adapter = make_adapter(base, tmp_path / "adapter", layers=TOP, targets="all", dropout=0.0)
    fuse(base, adapter, tmp_path / "fused", fuse_params(dtype="float32"))
    both = load_model(base, mx.float32, adapter), load_model(tmp_path / "fused", mx.float32)
    parity = measure(*both, tiny.facts(), fuse_params())
    parity.check(fuse_params())
    # The base would not pass.
    assert measure(both[0], load_model(base, mx.float32), tiny.facts(), fuse_params()).mean_kl > (
        10 * parity.mean_kl + 1e-6
    )


def run(model: LoadedModel, settings: TrainParams, folder: Path) -> Training:
    result = train(model, tiny.facts(), tiny.facts(), settings, folder / "runs", tiny.ALONE)
    assert result.checkpoints is not None
    result.checkpoints.remove()
    return result


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_trains(name: str, tmp_path: Path) -> None:
    model = load_model(save(tmp_path / "base", KINDS[name]), mx.float32)
    settings = params(
        iterations=2, evaluate_every=1, save_every=1, dropout=0.0, warmup_iterations=0
    )
    result = run(model, settings, tmp_path)
    moved = [name for name, array in result.weights.items() if "lora_b" in name and array.any()]
    assert len(moved) == len([name for name in result.weights if "lora_b" in name])


@pytest.mark.parametrize("name", ["lfm2", "qwen3_next", "deepseek_v3"])
def test_blocks_of_several_kinds_have_each_their_own_layers(name: str) -> None:
    network, _ = build(KINDS[name])
    keys = target_keys(network, params().lora)
    for block in network.layers[-TOP:]:
        own = {path for path, module in block.named_modules() if hasattr(module, "to_quantized")}
        left = set(not_adaptable(network, params().lora))
        assert own - left <= set(keys)


def test_what_has_no_adapter_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = load_model(save(tmp_path / "base", KINDS["lfm2"]), mx.float32)
    settings = params(iterations=1, evaluate_every=1, save_every=1, warmup_iterations=0)
    run(model, settings, tmp_path)
    told = capfd.readouterr()
    assert "mlx-lm has no lora for these layers, they stay as they are: conv.conv (Conv1d)" in (
        told.out + told.err
    )


def test_experts_have_no_dora_and_are_told_to_be_left_out() -> None:
    network, _ = build(KINDS["mixtral"])
    dora = params(kind="dora").lora
    experts = {f"block_sparse_moe.switch_mlp.{name}_proj" for name in ("down", "gate", "up")}
    assert set(not_adaptable(network, dora)) == experts
    assert not experts & set(target_keys(network, dora))
    with pytest.raises(UserError, match=r"train\.lora\.targets: gate_proj, but the model's blocks"):
        apply_lora(network, params(kind="dora", targets=["gate_proj"]).lora)


@pytest.mark.parametrize("rank", [65, 65536])
def test_a_rank_above_a_layers_width_is_refused(rank: int) -> None:
    with pytest.raises(UserError) as caught:
        apply_lora(tiny.network(), params(rank=rank, targets="qkv").lora)
    assert str(caught.value) == (
        f"train.lora.rank: {rank}, but self_attn.v_proj reads 64 numbers; lower it"
    )
