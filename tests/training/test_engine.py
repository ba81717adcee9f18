"""What a step does: the mathematics of its options, against the plain way."""

from typing import Any

import mlx.core as mx
import mlx.optimizers as optimizers
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from blogtune.cpu import patches
from blogtune.training.engine import Engine
from blogtune.training.examples import Batch, Example, make_batch
from tests import tiny
from tests.training import architectures
from tests.training.oracle import simple_loss

EXAMPLES = [
    Example("a", [1, 5, 6, 7], [8, 9, 2]),
    Example("b", [1, 5, 6], [10, 2]),
    Example("c", [1, 5, 6, 7, 20, 21, 33, 40, 41], [8, 9, 3, 4, 2]),
    Example("d", [3, 4], [2]),
]
WHOLE = make_batch(EXAMPLES)
PARTS = [make_batch(EXAMPLES[:2]), make_batch(EXAMPLES[2:])]


def engine(network: Any | None = None, **changes: Any) -> Engine:
    settings = {"dropout": 0.0, "batch_pairs": 2, **changes}
    return architectures.engine(network or tiny.network(), **settings)


def flat(tree: Any) -> dict[str, mx.array]:
    return dict(tree_flatten(tree))


def assert_close(got: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    assert got.keys() == expected.keys()
    largest = max(float(mx.abs(array).max()) for array in expected.values())
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, atol=tolerance * largest, err_msg=name)


def moved(made: Engine, batches: list[Batch], steps: int = 3) -> dict[str, mx.array]:
    for iteration in range(1, steps + 1):
        made.step(batches, iteration, 1e-3)
    return made.weights()


def test_several_batches_make_the_step_of_one_with_all_examples() -> None:
    # The batches have unlike numbers of answer tokens: a mean of means would be another step.
    assert len(PARTS[0].targets) != len(PARTS[1].targets)
    assert_close(moved(engine(), PARTS), moved(engine(), [WHOLE]), 1e-5)
    losses = engine().step(PARTS, 1, 1e-3), engine().step([WHOLE], 1, 1e-3)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_adamw_is_adam_with_shrinking_weights(weight_decay: float) -> None:
    made = engine(optimizer="adamw", weight_decay=weight_decay)
    before = made.weights()
    plain = moved(engine(), [WHOLE], steps=1)
    shrunk = {name: plain[name] - 1e-3 * weight_decay * before[name] for name in plain}
    assert_close(moved(made, [WHOLE], steps=1), shrunk, 1e-6)


def test_a_long_gradient_is_scaled_down_to_the_limit() -> None:
    made = engine()
    _, gradients = made.gradients(WHOLE, len(WHOLE.targets))
    length = float(sum((array * array).sum() for array in flat(gradients).values())) ** 0.5
    # Adam hardly sees a gradient's length, so what was clipped is read from its first moment.
    limit = length / 4
    clipped, free = engine(clip_norm=limit), engine(clip_norm=2 * length)
    for each in (clipped, free):
        each.step([WHOLE], 1, 1e-3)
    for each, scale in ((clipped, 0.25), (free, 1.0)):
        state = each.optimizer_state()
        for name, array in flat(gradients).items():
            np.testing.assert_allclose(
                state[f"{name}.m"], 0.1 * scale * array, atol=1e-5 * length, err_msg=name
            )


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("targets", ["qkv", "all"])
@pytest.mark.parametrize("bits", [None, 4], ids=["float base", "4-bit base"])
def test_every_kind_of_adapter_has_the_plain_loss_and_gradients(
    kind: str, targets: str, bits: int | None
) -> None:
    network = tiny.network()
    if bits is not None:
        nn.quantize(network, group_size=32, bits=bits)
    made = engine(network, kind=kind, targets=targets)
    got = made.gradients(WHOLE, 5)
    made.head._given.clear()
    expected = nn.value_and_grad(made.network, lambda m: simple_loss(m, WHOLE, 5))(made.network)
    assert got[0] == pytest.approx(float(expected[0]), rel=1e-5)
    assert_close(flat(got[1]), flat(expected[1]), 1e-4)


def test_what_is_random_in_a_step_follows_from_seed_and_iteration() -> None:
    def loss(iteration: int, **changes: Any) -> float:
        made = engine(dropout=0.5, **changes)
        mx.random.seed(int(np.random.default_rng().integers(1 << 30)))
        return made.step([WHOLE], iteration, 1e-3)

    assert loss(1) == loss(1) != loss(2)
    assert loss(1, seed=7) != loss(1, seed=8)


def test_each_process_drops_other_things() -> None:
    losses = list[float]()
    for group in (tiny.ALONE, tiny.Member(1, of=1)):
        made = engine(dropout=0.5)
        made.group = group
        losses.append(made.step([WHOLE], 1, 1e-3))
    assert losses[0] != losses[1]


def test_an_evaluation_does_not_end_dropout() -> None:
    fresh, evaluated = engine(dropout=0.5), engine(dropout=0.5)
    evaluated.validate(EXAMPLES)
    assert evaluated.step([WHOLE], 1, 1e-3) == fresh.step([WHOLE], 1, 1e-3)


def test_what_was_remembered_is_restored_to_the_bit() -> None:
    one, other = engine(seed=1), engine(seed=2)
    moved(one, [WHOLE])
    other.restore(one.weights(), one.optimizer_state())
    assert one.step(PARTS, 4, 1e-3) == other.step(PARTS, 4, 1e-3)
    for mine, theirs in ((one.weights(), other.weights()),):
        assert all(mx.array_equal(mine[name], theirs[name]) for name in mine)
    assert one.optimizer_state().keys() == other.optimizer_state().keys()


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
def test_twenty_steps_are_those_of_a_plain_loop(dtype: mx.Dtype) -> None:
    patches.use()
    network, plain = tiny.network(), tiny.network()
    for each in (network, plain):
        each.set_dtype(dtype)
    made, simple = engine(network), engine(plain)
    optimizer = optimizers.Adam(learning_rate=1e-3)
    gradients = nn.value_and_grad(
        simple.network, lambda m: simple_loss(m, WHOLE, len(WHOLE.targets))
    )
    simple.head._goes_through = False
    for iteration in range(1, 21):
        ours = made.step([WHOLE], iteration, 1e-3)
        theirs, gradient = gradients(simple.network)
        optimizer.update(simple.network, gradient)
        assert ours == pytest.approx(float(theirs), rel=1e-4 if dtype == mx.float32 else 3e-2)
