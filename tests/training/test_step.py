"""What a step does: the mathematics of its options, against the plain way, on both ways."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn, optimizers
from mlx.utils import tree_flatten

from blogtune.training.examples import Batch, Example, make_batch
from blogtune.training.step import Step, evaluate, train_step, weights
from tests import tiny
from tests.training.architectures import Adapted, adapted, assert_same, computed
from tests.training.oracle import simple_loss, simple_step

EXAMPLES = [
    Example("a", [1, 5, 6, 7], [8, 9, 2]),
    Example("b", [1, 5, 6], [10, 2]),
    Example("c", [1, 5, 6, 7, 20, 21, 33, 40, 41], [8, 9, 3, 4, 2]),
    Example("d", [3, 4], [2]),
]
WHOLE = make_batch(EXAMPLES)
PARTS = [make_batch(EXAMPLES[:2]), make_batch(EXAMPLES[2:])]


def made(network: Any | None = None, **changes: Any) -> Adapted:
    return adapted(network or tiny.network(), **{"batch_pairs": 2, **changes})


@pytest.fixture(params=["reference", "fast"])
def way(request: pytest.FixtureRequest) -> str:
    return request.param


def stepped(of: Adapted, way: str, batches: Sequence[Batch], steps: int = 1) -> list[float]:
    """The losses of so many steps, each on all the batches."""
    step, optimizer = getattr(of, way)(), of.optimizer()
    optimizer.learning_rate = mx.array(1e-3)
    each = of.network, optimizer, batches, of.params.clip_norm, tiny.ALONE
    return [train_step(step, *each) for _ in range(steps)]


def moved(of: Adapted, way: str, batches: Sequence[Batch], steps: int = 3) -> dict[str, mx.array]:
    return {"loss": mx.array(stepped(of, way, batches, steps)), **weights(of.network)}


def assert_moved_alike(one: dict[str, Any], other: dict[str, Any], tolerance: float) -> None:
    np.testing.assert_allclose(one.pop("loss"), other.pop("loss"), rtol=1e-5)
    largest = max(float(mx.abs(array).max()) for array in other.values())
    for name, array in other.items():
        np.testing.assert_allclose(one[name], array, atol=tolerance * largest, err_msg=name)


def test_several_batches_make_the_step_of_one_with_all_examples(way: str) -> None:
    # The batches have unlike numbers of answer tokens: a mean of means would be another step.
    assert len(PARTS[0].targets) != len(PARTS[1].targets)
    assert_moved_alike(moved(made(), way, PARTS), moved(made(), way, [WHOLE]), 1e-5)


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_adamw_is_adam_with_shrinking_weights(way: str, weight_decay: float) -> None:
    shrinking = made(optimizer="adamw", weight_decay=weight_decay)
    before = weights(shrinking.network)
    plain = moved(made(), way, [WHOLE], steps=1)
    got = moved(shrinking, way, [WHOLE], steps=1)
    expected = {n: plain[n] - 1e-3 * weight_decay * array for n, array in before.items()}
    assert_moved_alike(got, {"loss": plain["loss"], **expected}, 1e-6)


def test_a_long_gradient_is_scaled_down_to_the_limit(way: str) -> None:
    tokens = len(WHOLE.targets)
    gradients = simple_step(made().network, WHOLE)
    gradients = {n: a / tokens for n, a in gradients.items() if n != "loss"}
    length = float(sum((array * array).sum() for array in gradients.values())) ** 0.5
    # Adam hardly sees a gradient's length, so what was clipped is read from its first moment.
    for limit, scale in ((length / 4, 0.25), (2 * length, 1.0)):
        of = made(clip_norm=limit)
        step, optimizer = getattr(of, way)(), of.optimizer()
        train_step(step, of.network, optimizer, [WHOLE], limit, tiny.ALONE)
        state: dict[str, Any] = dict(tree_flatten(optimizer.state))
        for name, array in gradients.items():
            np.testing.assert_allclose(
                state[f"{name}.m"], 0.1 * scale * array, atol=1e-5 * length, err_msg=name
            )


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("targets", ["qkv", "all"])
@pytest.mark.parametrize("bits", [None, 4], ids=["float base", "4-bit base"])
def test_every_kind_of_adapter_has_the_plain_loss_and_gradients(
    way: str, kind: str, targets: str, bits: int | None
) -> None:
    network = tiny.network()
    if bits is not None:
        nn.quantize(network, group_size=32, bits=bits)
    of = made(network, kind=kind, targets=targets)
    got = computed(getattr(of, way)(), WHOLE)
    assert_same(got, simple_step(network, WHOLE), 1e-4)


def test_what_is_dropped_follows_from_the_random_state(way: str) -> None:
    def loss(seed: int) -> float:
        of = made(dropout=0.5)
        mx.random.seed(seed)
        (found,) = stepped(of, way, [WHOLE])
        return found

    assert loss(1) == loss(1) != loss(2)


def test_an_evaluation_does_not_end_dropout(way: str) -> None:
    losses = list[float]()
    for evaluated in (False, True):
        of = made(dropout=0.5)
        if evaluated:
            evaluate(getattr(of, way)(), of.network, [WHOLE], tiny.ALONE)
        mx.random.seed(1)
        losses += stepped(of, way, [WHOLE])
    assert losses[0] == losses[1]


def test_an_evaluation_drops_nothing_and_weighs_every_token_alike(way: str) -> None:
    of = made(dropout=0.5)
    found = evaluate(getattr(of, way)(), of.network, PARTS, tiny.ALONE)
    of.network.eval()
    simple = float(simple_loss(of.network, WHOLE, len(WHOLE.targets)))
    assert found == pytest.approx(simple, rel=1e-5)


def test_a_process_takes_its_share_and_the_whole_batch_s_tokens_divide() -> None:
    """Two processes' gradients add up to one's: the sums are left out here, where none is sent."""
    seen = list[Batch]()

    class Watching:
        def loss_and_gradients(self, batch: Batch) -> tuple[mx.array, dict[str, mx.array]]:
            seen.append(batch)
            return mx.array(6.0), {n: mx.ones_like(a) for n, a in weights(of.network).items()}

        def validation_loss(self, batch: Batch) -> mx.array:
            seen.append(batch)
            return mx.array(0.0)

    of = made()
    step: Step = Watching()
    batch = make_batch(EXAMPLES[:3])
    for rank, ids in ((0, "ac"), (1, "b")):
        seen.clear()
        shares = [batch.share(rank, 2)]
        assert ["".join(e.id for e in each.examples) for each in shares if each] == [ids]
    assert make_batch(EXAMPLES[:1]).share(1, 2) is None
    assert batch.share(0, 1) is batch
    loss = train_step(step, of.network, of.optimizer(), [batch], None, tiny.ALONE)
    assert loss == pytest.approx(6.0 / len(batch.targets))


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
def test_twenty_steps_are_those_of_a_plain_loop(way: str, dtype: mx.Dtype) -> None:
    network, plain = tiny.network(), tiny.network()
    of, simple = made(network), made(plain)
    for each in (network, plain):
        each.set_dtype(dtype)
    ours = stepped(of, way, [WHOLE], 20)
    optimizer = optimizers.Adam(learning_rate=1e-3)
    gradients = nn.value_and_grad(
        simple.network, lambda m: simple_loss(m, WHOLE, len(WHOLE.targets))
    )
    for loss in ours:
        theirs, gradient = gradients(simple.network)
        optimizer.update(simple.network, gradient)
        assert loss == pytest.approx(float(theirs), rel=1e-4 if dtype == mx.float32 else 3e-2)
