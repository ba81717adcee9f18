"""Gradient checkpointing by MLX's own way, as on a GPU."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from blogtune.runtime import host
from blogtune.training.blocks import list_of_blocks
from blogtune.training.engine import Engine
from blogtune.training.recompute import Recomputed, drawn
from tests import tiny
from tests.training.architectures import spread_adapters


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
def test_a_recomputed_block_drops_again_what_it_dropped(dtype: mx.Dtype) -> None:
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
            mx.random.seed(drawn())

        def loss(parameters: Any, x: mx.array) -> mx.array:
            block.update(parameters)
            return (of(x, None, None) * x).sum()

        value, (gradients, to_x) = mx.value_and_grad(loss, argnums=(0, 1))(
            block.trainable_parameters(), x
        )
        return [value, to_x, *dict(tree_flatten(gradients)).values()]

    for got, expected in zip(computed(Recomputed(block)), computed(block), strict=True):
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
    stand_in = Recomputed(block)
    assert not mx.array_equal(stand_in(x, None, None), stand_in(x, None, None))
