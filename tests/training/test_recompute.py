"""Gradient checkpointing by MLX's own way, as on a GPU."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from blogtune.models.blocks import list_of_blocks
from blogtune.training.examples import Example, make_batch
from blogtune.training.recompute import Recomputed, drawn, random_numbers
from tests import tiny
from tests.training.architectures import adapted, computed


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
def test_a_recomputed_block_drops_again_what_it_dropped(dtype: mx.Dtype) -> None:
    network = tiny.network()
    adapted(network, dropout=0.5)
    network.set_dtype(dtype)
    network.train()
    block, x = list_of_blocks(network)[-1], mx.random.normal((2, 5, tiny.WIDTH)).astype(dtype)

    def found(of: Any) -> list[mx.array]:
        # The stand-in draws its block's seed first.
        mx.random.seed(1)
        if of is block:
            mx.random.seed(drawn())

        def loss(parameters: Any, x: mx.array) -> mx.array:
            block.update(parameters)
            return (of(x, None, None) * x).sum()

        value, (gradients, to_x) = mx.value_and_grad(loss, argnums=(0, 1))(
            block.trainable_parameters(), x
        )
        return [value, to_x, *dict(tree_flatten(gradients)).values()]

    for got, expected in zip(found(Recomputed(block)), found(block), strict=True):
        largest = float(mx.abs(expected).max())
        tolerance = 1e-5 if dtype == mx.float32 else 2e-2
        np.testing.assert_allclose(
            got.astype(mx.float32), expected.astype(mx.float32), atol=tolerance * largest
        )


@pytest.mark.parametrize("cached", [False, True], ids=["all blocks", "cached activations"])
def test_the_reference_recomputes_its_adapted_blocks(
    monkeypatch: pytest.MonkeyPatch, *, cached: bool
) -> None:
    examples = [Example("a", [1, 5, 6, 7], [8, 9, 2]), Example("b", [1, 5, 6], [10, 33, 2])]
    seen, call = list[int](), Recomputed.__call__

    def counted(stand_in: Recomputed, *given: Any, **named: Any) -> mx.array:
        seen.append(1)
        return call(stand_in, *given, **named)

    monkeypatch.setattr(Recomputed, "__call__", counted)
    found = list[dict[str, Any]]()
    for recompute in (False, True):
        network = tiny.network()
        network.set_dtype(mx.bfloat16)
        made = adapted(network, layers=3, gradient_checkpointing=recompute)
        network.set_dtype(mx.bfloat16)
        step = made.reference(made.cache(examples) if cached else None)
        found.append(computed(step, make_batch(examples)))
        assert len(seen) == (3 if recompute else 0)
    for name, array in found[0].items():
        largest = float(mx.abs(array).max())
        got, expected = (each[name].astype(mx.float32) for each in found)
        np.testing.assert_allclose(got, expected, atol=2e-2 * largest, err_msg=name)


def test_two_recomputed_blocks_drop_other_things() -> None:
    network = tiny.network()
    adapted(network, dropout=0.5)
    network.train()
    block, x = list_of_blocks(network)[-1], mx.random.normal((2, 5, tiny.WIDTH))
    stand_in = Recomputed(block)
    assert not mx.array_equal(stand_in(x, None, None), stand_in(x, None, None))


def test_random_numbers_go_on_whatever_was_drawn_inside() -> None:
    def after(count: int) -> float:
        mx.random.seed(1)
        with random_numbers(5):
            for _ in range(count):
                mx.random.normal()
        return float(mx.random.normal())

    assert after(1) == after(3)
