"""Gradient checkpointing on a GPU (Chen et al. 2016, arXiv 1604.06174), and its random numbers.

A block keeps its input alone, and is computed a second time for its gradients: then it has to drop
the same things again. On a CPU `descent` does that in its own way.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from blogtune.training.blocks import StandIn


class Recomputed(StandIn):
    """Computes its block twice by MLX's `checkpoint`, with the same random numbers."""

    def __call__(self, x: mx.array, *others: Any, **named: Any) -> mx.array:
        trained: dict[str, mx.array] = dict(tree_flatten(self.block.trainable_parameters()))
        seed = drawn()

        def block(x: mx.array, *arrays: mx.array) -> mx.array:
            self.block.update(tree_unflatten(list(zip(trained, arrays, strict=True))))
            with random_numbers(seed):
                return self.block(x, *others, **named)

        return mx.checkpoint(block)(x, *trained.values())


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
