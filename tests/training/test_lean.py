"""What a step's trace keeps: less, and the same numbers."""

from contextlib import nullcontext
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from blogtune.runtime import host
from blogtune.training import lean as module
from blogtune.training.blocks import list_of_blocks
from blogtune.training.engine import Engine
from blogtune.training.examples import Example, make_batch
from blogtune.training.lean import lean, mlx_rms_norm, mlx_rope
from tests import tiny
from tests.training.architectures import NAMES, build, spread_adapters
from tests.training.oracle import simple_loss

BATCH = make_batch([Example("a", [1, 5, 6, 7], [8, 9, 2]), Example("b", [1, 5, 6], [10, 33, 2])])
LONG = make_batch([Example(str(n), [1, *range(3, 40)], [*range(50, 90), 2]) for n in range(4)])


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_are_those_of_a_plain_trace(name: str, *, recompute: bool) -> None:
    network = build(name)
    Engine(network, tiny.train_params(dropout=0.0), tiny.ALONE).head._goes_through = False
    spread_adapters(network)

    def computed(around: Any) -> dict[str, mx.array]:
        def loss(network: Any) -> mx.array:
            with around():
                return simple_loss(network, BATCH, 6)

        value, gradients = nn.value_and_grad(network, loss)(network)
        return {"loss": value, **dict(tree_flatten(gradients))}

    expected = computed(nullcontext)
    got = computed(lambda: lean(network, 2, recompute=recompute))
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        largest = float(mx.abs(value).max())
        np.testing.assert_allclose(got[key], value, atol=1e-5 * largest + 1e-8, err_msg=key)


@pytest.mark.parametrize("traditional", [False, True])
@pytest.mark.parametrize("offset", [0, 3])
@pytest.mark.parametrize("freqs", [None, mx.array([1.0, 7.0, 90.0])], ids=["base", "freqs"])
def test_positions_turned_back_are_their_gradient(
    freqs: mx.array | None, offset: int, *, traditional: bool
) -> None:
    x, direction = (mx.random.normal((2, 3, 5, 8), key=mx.random.key(n)) for n in (0, 1))
    base = None if freqs is not None else 100.0
    settings = {"traditional": traditional, "base": base, "offset": offset, "freqs": freqs}

    def along(function: Any) -> list[mx.array]:
        outputs, gradients = mx.vjp(
            lambda x: function(x, 6, scale=0.5, **settings), [x], [direction]
        )
        return [*outputs, *gradients]

    for got, expected in zip(along(module._rope), along(mlx_rope), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_mlxs_functions_and_blocks_are_back_afterwards_whatever_happens() -> None:
    network = tiny.network()
    blocks = list(list_of_blocks(network))

    def failing() -> None:
        with lean(network, 2, recompute=False):
            assert mx.fast.rope is not mlx_rope
            assert list_of_blocks(network)[-2:] != blocks[-2:]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert (mx.fast.rope, mx.fast.rms_norm) == (mlx_rope, mlx_rms_norm)
    assert list_of_blocks(network) == blocks


def peak(made: Engine) -> int:
    """Bytes beyond what was there before, of a step."""
    made.step([LONG], 1, 1e-3)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    made.step([LONG], 2, 1e-3)
    return mx.get_peak_memory() - before


def test_a_step_takes_half_the_memory_and_recomputed_a_third(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host.use()
    less, least = (
        peak(Engine(tiny.network(), tiny.train_params(layers=4, **changes), tiny.ALONE))
        for changes in ({}, {"gradient_checkpointing": True})
    )
    monkeypatch.setattr("blogtune.training.engine.lean", lambda *_, **__: nullcontext())
    most = peak(Engine(tiny.network(), tiny.train_params(layers=4), tiny.ALONE))
    assert less < 0.55 * most
    assert least < 0.33 * most


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", [module._Recomputed, module._RecomputedLater])
def test_a_recomputed_block_drops_again_what_it_dropped(kind: type[Any], dtype: mx.Dtype) -> None:
    host.use()
    network = tiny.network()
    Engine(network, tiny.train_params(dropout=0.5), tiny.ALONE)
    spread_adapters(network)
    network.set_dtype(dtype)
    network.train()
    block, x = list_of_blocks(network)[-1], mx.random.normal((2, 5, tiny.WIDTH)).astype(dtype)

    def computed(of: Any) -> list[mx.array]:
        # The stand-in draws its block's seed first.
        mx.random.seed(1)
        if of is block:
            mx.random.seed(module._drawn())

        def loss(parameters: Any, x: mx.array) -> mx.array:
            block.update(parameters)
            return (of(x, None, None) * x).sum()

        value, (gradients, to_x) = mx.value_and_grad(loss, argnums=(0, 1))(
            block.trainable_parameters(), x
        )
        return [value, to_x, *dict(tree_flatten(gradients)).values()]

    for got, expected in zip(computed(kind(block)), computed(block), strict=True):
        largest = float(mx.abs(expected).max())
        tolerance = 1e-5 if dtype == mx.float32 else 2e-2
        np.testing.assert_allclose(
            got.astype(mx.float32), expected.astype(mx.float32), atol=tolerance * largest
        )


def test_two_recomputed_blocks_drop_other_things() -> None:
    host.use()
    network = tiny.network()
    Engine(network, tiny.train_params(dropout=0.5), tiny.ALONE)
    spread_adapters(network)
    network.train()
    block, x = list_of_blocks(network)[-1], mx.random.normal((2, 5, tiny.WIDTH))
    stand_in = module._Recomputed(block)
    assert not mx.array_equal(stand_in(x, None, None), stand_in(x, None, None))
