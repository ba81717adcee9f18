"""Functions that bring their own gradient."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np


def with_gradient(function: Callable[..., Any], gradient: Callable[..., Any]) -> Any:
    """The function of arrays, with `gradient` instead of the one that MLX would find.

    `gradient` gets the arguments, the cotangents and the outputs, each as one array or as several,
    and returns the gradients at the arguments.
    """
    made: Any = mx.custom_function(function)
    made.vjp(gradient)
    return made


def scalar_with_grad(value: float, x: mx.array, gradient: mx.array) -> mx.array:
    """A float32 number that is `value`, with that gradient at `x`."""

    def forward(_: mx.array) -> mx.array:
        return mx.array(value)

    def backward(_: mx.array, cotangent: mx.array, __: mx.array) -> mx.array:
        return (gradient * cotangent).astype(x.dtype)

    made: mx.array = with_gradient(forward, backward)(x)
    return made


def _same(x: mx.array) -> mx.array:
    return x


def _detached(_: mx.array, cotangent: mx.array, __: mx.array) -> mx.array:
    return detach(cotangent)


def detach(x: mx.array) -> mx.array:
    """The same numbers as a new array, which keeps nothing that they were computed from.

    Inside a gradient's trace MLX keeps whatever an array came from, also of `mx.stop_gradient`.
    """
    return mx.array(np.asarray(x.astype(mx.float32))).astype(x.dtype)


# The same array; of the gradient that comes back through it nothing is kept but its numbers.
detach_gradient = with_gradient(_same, _detached)
