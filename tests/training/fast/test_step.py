"""The CPU's step: the reference's loss and gradients, in less time and memory."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from blogtune.cpu import dropout as cpu_dropout
from blogtune.cpu.patches import over
from blogtune.training.examples import Example, make_batch
from blogtune.training.step import train_step
from tests import tiny
from tests.training.architectures import (
    NAMES,
    Adapted,
    adapted,
    assert_same,
    build,
    computed,
)
from tests.training.oracle import simple_step

BATCH = make_batch([Example("a", [1, 5, 6, 7], [8, 9, 2]), Example("b", [1, 5, 6], [10, 33, 2])])
LONG = make_batch([Example(str(n), [1, *range(3, 40)], [*range(50, 90), 2]) for n in range(4)])
WAYS = pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])


@WAYS
@pytest.mark.parametrize("layers", [1, 2, 4], ids="adapted: {}".format)
@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_are_those_of_a_plain_trace(
    name: str, layers: int, *, recompute: bool
) -> None:
    made = adapted(build(name), layers=layers, gradient_checkpointing=recompute)
    got = computed(made.fast(), BATCH)
    assert_same(got, simple_step(made.network, BATCH), 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_validation_loss_is_that_of_the_step(name: str) -> None:
    made = adapted(build(name))
    loss = float(computed(made.fast(), BATCH)["loss"])
    assert float(made.fast().validation_loss(BATCH)) == pytest.approx(loss, rel=1e-6)


def test_what_is_dropped_is_what_the_reference_drops() -> None:
    made = adapted(tiny.network(), dropout=0.5)
    made.network.train()

    def found(step: Any) -> dict[str, mx.array]:
        mx.random.seed(4)
        return computed(step, BATCH)

    # Both draw by the CPU's way: another generator would drop other things.
    with over(nn.Dropout, "__call__", cpu_dropout.dropout):
        expected = found(made.reference())
    assert_same(found(made.fast()), expected, 1e-5)


def test_a_recomputed_block_drops_again_what_it_dropped_and_others_other_things(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = adapted(
        tiny.network(), dropout=0.5, layers=2, targets=["o_proj"], gradient_checkpointing=True
    )
    seen, plain = list[bytes](), cpu_dropout.dropout

    def dropout(layer: Any, x: mx.array) -> mx.array:
        out = plain(layer, x)
        seen.append(np.asarray(out == 0).tobytes())
        return out

    monkeypatch.setattr("blogtune.cpu.patches.cpu_dropout", dropout)
    made.network.train()
    computed(made.fast(), BATCH)
    lower, upper, upper_again, lower_again = seen
    assert lower == lower_again != upper == upper_again


@WAYS
def test_weights_blocks_and_functions_are_back_after_an_error(
    monkeypatch: pytest.MonkeyPatch, *, recompute: bool
) -> None:
    made = adapted(tiny.network(), gradient_checkpointing=recompute)
    blocks = list(made.network.layers)
    before = (mx.fast.scaled_dot_product_attention, nn.losses.cross_entropy, nn.Dropout.__call__)

    def failing(*_: Any, **__: Any) -> mx.array:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("blogtune.cpu.patches.cpu_cross_entropy", failing)
        with pytest.raises(ZeroDivisionError):
            computed(made.fast(), BATCH)
    assert list(made.network.layers) == blocks
    now = (mx.fast.scaled_dot_product_attention, nn.losses.cross_entropy, nn.Dropout.__call__)
    assert now == before
    # And the same network goes on as if nothing had been.
    fresh = adapted(tiny.network())
    assert_same(computed(made.fast(), BATCH), computed(fresh.fast(), BATCH), 1e-5)


def peak(made: Adapted, step: Any) -> int:
    """Bytes beyond what was there before, of a step."""
    optimizer = made.optimizer()
    each = made.network, optimizer, [LONG], None, tiny.ALONE
    train_step(step, *each)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    train_step(step, *each)
    return mx.get_peak_memory() - before


@tiny.A_CPUS_WAY
def test_recomputed_a_step_takes_half_the_memory() -> None:
    kept, recomputed = (
        adapted(tiny.network(blocks=8), layers=8, gradient_checkpointing=recompute)
        for recompute in (False, True)
    )
    assert peak(recomputed, recomputed.fast()) < 0.5 * peak(kept, kept.fast())


@tiny.A_CPUS_WAY
def test_gradients_keep_nothing_of_how_they_came_about(monkeypatch: pytest.MonkeyPatch) -> None:
    made = adapted(tiny.network(blocks=8), layers=8)
    less = peak(made, made.fast())
    monkeypatch.setattr("blogtune.training.fast.blocks.detach_gradient", lambda x: x)
    monkeypatch.setattr("blogtune.cpu.lora.detach", lambda x: x)
    assert less < 0.8 * peak(made, made.fast())


def test_trained_names_are_those_of_the_network() -> None:
    made = adapted(tiny.network(), gradient_checkpointing=True)
    names = {name for name, _ in tree_flatten(made.network.trainable_parameters())}
    assert computed(made.fast(), BATCH).keys() == names | {"loss"}
