"""Gradients block by block: those of one trace over the network, in less memory."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from blogtune.cpu import patches
from blogtune.training.engine import Engine
from blogtune.training.examples import Example, make_batch
from tests import tiny
from tests.training.architectures import NAMES, build, engine
from tests.training.oracle import simple_loss

BATCH = make_batch([Example("a", [1, 5, 6, 7], [8, 9, 2]), Example("b", [1, 5, 6], [10, 33, 2])])
LONG = make_batch([Example(str(n), [1, *range(3, 40)], [*range(50, 90), 2]) for n in range(4)])
WAYS = pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])


@WAYS
@pytest.mark.parametrize("layers", [1, 2, 4], ids="adapted: {}".format)
@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_are_those_of_a_plain_trace(
    name: str, layers: int, *, recompute: bool
) -> None:
    network = build(name)
    made = engine(network, dropout=0.0, layers=layers, gradient_checkpointing=recompute)
    loss, gradients = made.descent.loss_and_gradients(BATCH, 6, None)
    simple, expected = nn.value_and_grad(network, lambda m: simple_loss(m, BATCH, 6))(network)
    assert float(loss) == pytest.approx(float(simple), rel=1e-5)
    meant = dict(tree_flatten(expected))
    assert gradients.keys() == meant.keys()
    for key, value in meant.items():
        largest = float(mx.abs(value).max())
        np.testing.assert_allclose(gradients[key], value, atol=1e-5 * largest + 1e-8, err_msg=key)


def test_what_is_dropped_is_what_one_trace_drops() -> None:
    patches.use()
    made = engine(tiny.network(), dropout=0.5)

    def computed(*, one_trace: bool) -> dict[str, mx.array]:
        made.one_trace = one_trace
        mx.random.seed(4)
        loss, gradients = made.gradients(BATCH, 6)
        return {"loss": mx.array(loss), **dict(tree_flatten(gradients))}

    expected = computed(one_trace=True)
    for name, array in computed(one_trace=False).items():
        largest = float(mx.abs(expected[name]).max())
        np.testing.assert_allclose(array, expected[name], atol=1e-5 * largest, err_msg=name)


@tiny.A_CPUS_WAY
def test_a_recomputed_block_drops_again_what_it_dropped_and_others_other_things(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patches.use()
    network = tiny.network()
    made = engine(network, dropout=0.5, layers=2, targets=["o_proj"], gradient_checkpointing=True)
    seen = list[bytes]()

    def dropout(layer: Any, x: mx.array) -> mx.array:
        out = patches.dropout(layer, x)
        seen.append(np.asarray(out == 0).tobytes())
        return out

    monkeypatch.setattr(nn.Dropout, "__call__", dropout)
    network.train()
    made.gradients(BATCH, 6)
    lower, upper, again = seen
    assert lower == again != upper


@tiny.A_CPUS_WAY
@WAYS
def test_weights_and_blocks_are_back_after_an_error(*, recompute: bool) -> None:
    network = tiny.network()
    made = engine(network, gradient_checkpointing=recompute)
    blocks = list(made.descent.blocks)
    before = {name: id(array) for name, array in tree_flatten(network.trainable_parameters())}

    def failing(*_: Any) -> mx.array:
        raise ZeroDivisionError

    made.descent.of_piece = failing
    with pytest.raises(ZeroDivisionError):
        made.gradients(BATCH, 6)
    assert made.descent.blocks == blocks
    after = {name: id(array) for name, array in tree_flatten(network.trainable_parameters())}
    assert after == before


def peak(made: Engine) -> int:
    """Bytes beyond what was there before, of a step."""
    made.step([LONG], 1, 1e-3)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    made.step([LONG], 2, 1e-3)
    return mx.get_peak_memory() - before


@tiny.A_CPUS_WAY
def test_a_step_takes_half_the_memory_and_recomputed_a_third() -> None:
    patches.use()
    less, least, most = (
        Engine(tiny.network(), tiny.train_params(layers=4, **changes), tiny.ALONE)
        for changes in ({}, {"gradient_checkpointing": True}, {})
    )
    most.one_trace = True
    whole = peak(most)
    assert peak(less) < 0.55 * whole
    assert peak(least) < 0.33 * whole
