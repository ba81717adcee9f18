"""On a CPU: what a step's trace keeps until its backward pass is over, and no more than that.

Numpy's exponentials ask for values while MLX still traces. What is computed then stays in memory to
the end of the step: every part of a norm, and behind every gradient whatever led to it. In here
such a chain is cut by a copy, of which MLX does not know where it came from. Measured, 8 blocks of
SmolLM2-135M, 4 x 140 tokens: 430 MB beyond the weights where there were 1,280.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from blogtune.training.blocks import StandIn, exchanged, list_of_blocks

mlx_rope, mlx_rms_norm = mx.fast.rope, mx.fast.rms_norm


@contextmanager
def lean(network: Any, adapted: int) -> Generator[None]:
    """While the block runs, a trace of the network's top blocks keeps what their gradients need.

    Their parameters are exchanged for arrays with the same values.
    """
    network.update(tree_map(_cut, network.trainable_parameters()))
    blocks = list_of_blocks(network)
    mx.fast.rope, mx.fast.rms_norm = _rope, _rms_norm
    try:
        with exchanged(blocks, range(len(blocks) - adapted, len(blocks)), _Cut):
            yield
    finally:
        mx.fast.rope, mx.fast.rms_norm = mlx_rope, mlx_rms_norm


class _Cut(StandIn):
    """Computes its block; its gradient holds nothing of the blocks above."""

    def __call__(self, x: mx.array, *others: Any, **named: Any) -> mx.array:
        out = self.block(x, *others, **named)
        return _cut(out) if isinstance(out, mx.array) else out


def _same(x: mx.array) -> mx.array:
    return x


def _gradient(_: mx.array, cotangent: mx.array, __: mx.array) -> mx.array:
    return _copied(cotangent)


_cut: Any = mx.custom_function(_same)
_cut.vjp(_gradient)


def _copied(x: mx.array) -> mx.array:
    return mx.array(np.asarray(x)) if x.dtype == mx.float32 else x


def _rope(x: mx.array, dims: int, *, scale: float, **settings: Any) -> mx.array:
    """Rotary positions, as the MLX function; backward they are turned the other way."""

    def turned(x: mx.array) -> mx.array:
        return _copied(mlx_rope(x, dims, scale=scale, **settings))

    def turned_back(_: mx.array, cotangent: mx.array, __: mx.array) -> mx.array:
        return mlx_rope(cotangent, dims, scale=-scale, **settings)

    return _with_gradient(turned, turned_back)(x)


def _rms_norm(x: mx.array, weight: mx.array | None, eps: float, **others: Any) -> mx.array:
    """As the MLX function; backward its parts are computed again. The weight is a frozen one."""

    def norm(x: mx.array) -> mx.array:
        return mlx_rms_norm(x, weight, eps, **others)

    def normed(x: mx.array) -> mx.array:
        return _copied(norm(x))

    def gradient(x: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
        return mx.vjp(norm, [x], [cotangent])[1][0]

    return _with_gradient(normed, gradient)(x)


def _with_gradient(function: Callable[..., mx.array], gradient: Callable[..., mx.array]) -> Any:
    made: Any = mx.custom_function(function)
    made.vjp(gradient)
    return made
