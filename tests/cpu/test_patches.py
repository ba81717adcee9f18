"""The CPU's functions over MLX's: in their place while a block runs, and nowhere afterwards."""

import importlib
import sys
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models import activations
from mlx_lm.tuner.lora import LoRALinear

from blogtune.cpu.patches import cpu_swiglu, mlx_swiglu, patched
from blogtune.training.examples import Example, make_batch
from tests.training.architectures import NAMES, build
from tests.training.oracle import simple_loss

BATCH = make_batch(
    [Example("a", [1, 5, 6, 7], [8, 9, 2]), Example("b", [1, 5, 6], [10, 33, 40, 41, 3, 2])]
)
ALL = ("attention", "swiglu", "gelu", "cross_entropy", "dropout", "lora")


def functions() -> dict[str, Any]:
    """What stands now in the place of each flag."""
    return {
        "attention": mx.fast.scaled_dot_product_attention,
        "swiglu": activations.swiglu,
        "gelu": nn.gelu,
        "cross_entropy": nn.losses.cross_entropy,
        "dropout": nn.Dropout.__call__,
        "lora": LoRALinear.__call__,
    }


@pytest.mark.parametrize("flag", ALL)
def test_a_flag_exchanges_its_function_and_no_other(flag: str) -> None:
    before = functions()
    with patched(**{flag: True}):
        changed = {name for name, function in functions().items() if function is not before[name]}
    assert changed == {flag}
    assert functions() == before


def test_all_are_back_whatever_happens() -> None:
    before = functions()

    def failing() -> None:
        with patched(**dict.fromkeys(ALL, True)):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert functions() == before


def test_within_one_another_the_outer_s_stay() -> None:
    with patched(swiglu=True, attention=True):
        outer = functions()
        with patched(swiglu=True, attention=True):
            assert functions() == outer
        assert functions() == outer
    assert activations.swiglu is mlx_swiglu


def test_swiglu_is_exchanged_in_models_imported_before_and_meanwhile() -> None:
    llama = importlib.import_module("mlx_lm.models.llama")
    sys.modules.pop("mlx_lm.models.qwen2", None)
    with patched(swiglu=True):
        qwen2 = importlib.import_module("mlx_lm.models.qwen2")
        assert llama.swiglu is cpu_swiglu
        assert qwen2.swiglu is cpu_swiglu
    assert llama.swiglu is mlx_swiglu
    assert qwen2.swiglu is mlx_swiglu


@pytest.mark.parametrize("name", NAMES)
def test_a_networks_loss_and_gradients_stay_what_they_were(name: str) -> None:
    network: Any = build(name)

    def computed() -> dict[str, mx.array]:
        loss = nn.value_and_grad(network, lambda m: simple_loss(m, BATCH, 9))
        value, gradients = loss(network)
        flat = dict(tree_flatten(gradients))
        mx.eval(value, flat)
        return {"loss": value, **flat}

    expected = computed()
    with patched(**dict.fromkeys(ALL, True)):
        got = computed()
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        largest = float(mx.abs(value).max())
        np.testing.assert_allclose(got[key], value, atol=1e-4 * largest + 1e-7, err_msg=key)
