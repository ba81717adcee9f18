"""Functions of MLX in a form whose trace keeps what their gradients need, and no more than that.

On a CPU numpy's exponentials ask for values while MLX still traces, and what was computed in a
trace stays in memory to its end: every part of a norm and of the rotary positions, which MLX builds
of many there. These keep their input alone. Measured, 8 blocks of SmolLM2-135M: 18,500 numbers a
token and block where there were 26,000.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np

from blogtune.cpu.gradients import with_gradient

mlx_rope, mlx_rms_norm = mx.fast.rope, mx.fast.rms_norm


@contextmanager
def lean() -> Generator[None]:
    """While the block runs, they stand in the place of MLX's."""
    mx.fast.rope, mx.fast.rms_norm = _rope, _rms_norm
    try:
        yield
    finally:
        mx.fast.rope, mx.fast.rms_norm = mlx_rope, mlx_rms_norm


def copied(x: mx.array) -> mx.array:
    """The same numbers, of which MLX does not know where they came from."""
    return mx.array(np.asarray(x.astype(mx.float32))).astype(x.dtype)


def _rope(x: mx.array, dims: int, *, scale: float, **settings: Any) -> mx.array:
    """Rotary positions, as the MLX function; backward they are turned the other way."""

    def turned(x: mx.array) -> mx.array:
        return copied(mlx_rope(x, dims, scale=scale, **settings))

    def turned_back(_: mx.array, cotangent: mx.array, __: mx.array) -> mx.array:
        return mlx_rope(cotangent, dims, scale=-scale, **settings)

    return with_gradient(turned, turned_back)(x)


def _rms_norm(x: mx.array, weight: mx.array | None, eps: float, **others: Any) -> mx.array:
    """As the MLX function; backward its parts are computed again. The weight is a frozen one."""

    def norm(x: mx.array) -> mx.array:
        return mlx_rms_norm(x, weight, eps, **others)

    def normed(x: mx.array) -> mx.array:
        return copied(norm(x))

    def gradient(x: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
        return mx.vjp(norm, [x], [cotangent])[1][0]

    return with_gradient(normed, gradient)(x)
