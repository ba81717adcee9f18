"""Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174), and its random numbers.

A block keeps its input alone, and is computed a second time for its gradients: then it has to drop
the same things again.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from blogtune.models.blocks import StandIn


class Recomputed(StandIn):
    """Computes its block twice by MLX's `checkpoint`, with the same random numbers."""

    def __call__(self, x: mx.array, *others: Any, **named: Any) -> mx.array:
        arrays, run = as_function(self.block, others, named)
        return mx.checkpoint(run)(x, *arrays)


def as_function(block: Any, others: Any, named: Any) -> tuple[list[mx.array], Any]:
    """The block's trained arrays, and the block as a function of its input and those.

    Its random numbers are the same at every call, and afterwards MLX's go on from there.
    """
    trained: dict[str, mx.array] = dict(tree_flatten(block.trainable_parameters()))
    seed = drawn()

    def run(x: mx.array, *arrays: mx.array) -> mx.array:
        block.update(tree_unflatten(list(zip(trained, arrays, strict=True))))
        with random_numbers(seed):
            return block(x, *others, **named)

    return list(trained.values()), run


def drawn() -> int:
    """A seed that follows from MLX's random state."""
    return int(np.asarray(mx.random.randint(0, 1 << 31, (), mx.uint32)))


@contextmanager
def random_numbers(seed: int) -> Generator[None]:
    """While the block runs, MLX's random numbers are those of `seed`; then it goes on."""
    afterwards = drawn()
    mx.random.seed(seed)
    yield
    mx.random.seed(afterwards)
