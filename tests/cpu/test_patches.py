import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn, optimizers
from mlx.utils import tree_flatten
from mlx_lm.tuner.lora import LoRALinear

from blogtune.cpu import exponentials, patches
from blogtune.training.examples import Example, make_batch
from tests.training.architectures import NAMES, build
from tests.training.oracle import simple_loss

BATCH = make_batch(
    [Example("a", [1, 5, 6, 7], [8, 9, 2]), Example("b", [1, 5, 6], [10, 33, 40, 41, 3, 2])]
)
SHAPE = (2, 6, 5, 8)


@pytest.fixture
def mlx_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLX's own functions in all models, whatever an earlier test put there."""
    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", exponentials.mlx_attention)
    for name in NAMES:
        build(name)
    for name, module in list(sys.modules.items()):
        if name.startswith("mlx_lm.models.") and hasattr(module, "swiglu"):
            monkeypatch.setattr(module, "swiglu", patches.mlx_swiglu)


def with_gradients(function: Callable[..., mx.array], *arrays: mx.array) -> list[mx.array]:
    """The function's value, and its gradients along a direction that is not all ones."""

    def along(*given: mx.array) -> mx.array:
        out = function(*given)
        return (out * mx.cos(mx.arange(out.size)).reshape(out.shape)).sum()

    return [function(*arrays), *mx.grad(along, argnums=tuple(range(len(arrays))))(*arrays)]


def assert_close(got: list[mx.array], expected: list[mx.array]) -> None:
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def normal(*shape: int, seed: int = 0, dtype: mx.Dtype = mx.float32) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed)).astype(dtype)


# The last is longer than one part, and does not end with one.
@pytest.mark.parametrize("shape", [(1,), (2, 3, 8), (3, 7001)], ids=str)
def test_swiglu_is_mlx_lms_in_value_and_gradients(shape: tuple[int, ...]) -> None:
    arrays = normal(*shape), normal(*shape, seed=1)
    got = with_gradients(patches.swiglu, *arrays)
    assert_close(got, with_gradients(patches.mlx_swiglu, *arrays))


def test_swiglu_at_the_ends_of_float32_is_0_or_the_product() -> None:
    gate = mx.array([-1e30, -200.0, -100.0, 0.0, 200.0])
    assert patches.swiglu(gate, mx.ones(5)).tolist() == [0.0, 0.0, 0.0, 0.0, 200.0]


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(None, id="no mask"),
        pytest.param("causal", id="causal"),
        pytest.param(mx.tril(mx.ones((5, 5))) > 0, id="one mask for all"),
        pytest.param(normal(2, 1, 5, 5) > -1, id="a mask for each row"),
        pytest.param(normal(5, 5), id="added"),
        pytest.param(normal(2, 6, 5, 5), id="added, one for each head"),
    ],
)
def test_attention_is_mlxs_in_value_and_gradients(mask: mx.array | str | None) -> None:
    arrays = normal(*SHAPE), normal(2, 3, 5, 8, seed=1), normal(2, 3, 5, 8, seed=2)
    got, expected = (
        with_gradients(lambda q, k, v, f=f: f(q, k, v, scale=0.35, mask=mask), *arrays)
        for f in (exponentials.attention, exponentials.mlx_attention)
    )
    assert_close(got, expected)


@pytest.mark.parametrize("mask", [None, "causal"], ids=str)
def test_attention_over_what_is_kept_of_earlier_tokens_is_mlxs(mask: str | None) -> None:
    queries, keys, values = normal(2, 6, 2, 8), normal(2, 3, 9, 8), normal(2, 3, 9, 8, seed=1)
    got = exponentials.attention(queries, keys, values, scale=0.35, mask=mask)
    assert_close([got], [exponentials.mlx_attention(queries, keys, values, scale=0.35, mask=mask)])


def test_gelu_is_mlxs() -> None:
    # The whole range in steps of 1/1000, in more than one part.
    x = mx.arange(-12_000, 12_000).reshape(2, -1) / 1000
    np.testing.assert_allclose(exponentials.gelu(x), nn.gelu(x), atol=1e-6)
    assert exponentials.gelu(mx.array([-1e30, -1e4, 0.0, 1e4])).tolist() == [0.0, 0.0, 0.0, 1e4]


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_other_types_go_to_mlx(dtype: mx.Dtype) -> None:
    queries, keys = normal(*SHAPE, dtype=dtype), normal(2, 3, 5, 8, dtype=dtype)
    got = exponentials.attention(queries, keys, keys, scale=0.35, mask="causal")
    assert got.dtype == dtype
    expected = exponentials.mlx_attention(queries, keys, keys, scale=0.35, mask="causal")
    assert mx.array_equal(got, expected)
    assert mx.array_equal(patches.swiglu(queries, queries), patches.mlx_swiglu(queries, queries))


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16], ids=str)
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(share: float, dtype: mx.Dtype) -> None:
    patches.use()
    layer, x = nn.Dropout(share), mx.ones((301, 1003), dtype)
    mx.random.seed(5)
    out = layer(x)
    assert out.dtype == dtype
    values = np.asarray(out.astype(mx.float32))
    dropped = float((values == 0).mean())
    # Six standard deviations of 301,903 draws.
    assert dropped == pytest.approx(share, abs=6 * (share * (1 - share) / values.size) ** 0.5)
    np.testing.assert_allclose(values[values != 0], 1 / (1 - share), rtol=1e-3)
    # No row, column or neighbour knows of another.
    zeros = (values == 0) - share
    for one, other in ((zeros[1:], zeros[:-1]), (zeros[:, 1:], zeros[:, :-1])):
        assert abs(float((one * other).mean())) < 6 * share * (1 - share) / values.size**0.5


def test_nearly_all_may_be_dropped() -> None:
    patches.use()
    out = np.asarray(nn.Dropout(1 - 1e-8)(mx.ones((1000, 1000))))
    assert set(np.unique(out)) <= {0.0, patches.LEVELS}
    assert 0 < (out > 0).sum() < 100


def test_dropout_follows_from_the_random_state_and_draws_anew_each_time() -> None:
    patches.use()
    layer, x = nn.Dropout(0.5), mx.ones((4, 33))

    def drawn(seed: int) -> list[mx.array]:
        mx.random.seed(seed)
        return [layer(x), layer(x)]

    first, second = drawn(1)
    assert mx.array_equal(first, drawn(1)[0])
    assert not mx.array_equal(first, second)
    assert not mx.array_equal(first, drawn(2)[0])


def test_dropout_passes_the_gradient_of_what_it_kept_and_sleeps_outside_of_training() -> None:
    patches.use()
    layer, x = nn.Dropout(0.5), normal(7, 9)
    mx.random.seed(1)
    kept = layer(x) / x
    mx.random.seed(1)
    gradient = mx.grad(lambda x: layer(x).sum())(x)
    np.testing.assert_allclose(gradient, kept, rtol=1e-6)
    assert mx.array_equal(layer.eval()(x), x)
    assert mx.array_equal(nn.Dropout(0.0)(x), x)


@pytest.mark.parametrize("bits", [None, 4], ids=["plain", "quantized"])
@pytest.mark.parametrize("bias", [False, True])
def test_an_adapted_layer_is_mlx_lms_in_value_and_gradients(
    bits: int | None, *, bias: bool
) -> None:
    linear: Any = nn.Linear(64, 6, bias=bias)
    if bits is not None:
        linear = nn.QuantizedLinear.from_linear(linear, 32, bits)
    layer = LoRALinear.from_base(linear, r=3, scale=7.0)

    def through(function: Callable[..., mx.array]) -> list[mx.array]:
        def applied(x: mx.array, narrow: mx.array, wide: mx.array) -> mx.array:
            layer.lora_a, layer.lora_b = narrow, wide
            return function(layer, x)

        given = normal(2, 5, 64), normal(64, 3, seed=1), normal(3, 6, seed=2)
        return with_gradients(applied, *given)

    for ours, theirs in zip(through(patches.lora), through(patches.mlx_lora), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)
    layer.set_dtype(mx.bfloat16)
    x = normal(2, 64, dtype=mx.bfloat16)
    assert mx.array_equal(patches.lora(layer, x), patches.mlx_lora(layer, x))


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize(
    "kind", [optimizers.Adam, partial(optimizers.AdamW, weight_decay=0.1)], ids=["adam", "adamw"]
)
def test_adam_takes_mlxs_steps(
    kind: Any, dtype: mx.Dtype, monkeypatch: pytest.MonkeyPatch, *, corrected: bool
) -> None:
    def walked(function: Callable[..., mx.array]) -> dict[str, mx.array]:
        monkeypatch.setattr(optimizers.Adam, "apply_single", function)
        optimizer = kind(learning_rate=0.01, bias_correction=corrected)
        parameters = {"w": normal(7, 9).astype(dtype)}
        for seed in range(20):
            gradients = {"w": normal(7, 9, seed=seed).astype(dtype)}
            parameters = optimizer.apply_gradients(gradients, parameters)
        return {**parameters, **dict(tree_flatten(optimizer.state))}

    got, expected = walked(patches.adam), walked(patches.mlx_adam)
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        if dtype != mx.float32 or corrected:
            assert mx.array_equal(got[name], array)
        np.testing.assert_allclose(
            got[name].astype(mx.float32), array.astype(mx.float32), rtol=1e-5, atol=1e-6
        )


@pytest.mark.usefixtures("mlx_alone")
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
    patches.use()
    assert mx.fast.scaled_dot_product_attention is exponentials.attention
    got = computed()
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        largest = float(mx.abs(value).max())
        np.testing.assert_allclose(got[key], value, atol=1e-4 * largest + 1e-7, err_msg=key)
