"""What all tests of an operation share: values and gradients along a direction."""

from collections.abc import Callable

import mlx.core as mx
import numpy as np


def with_gradients(function: Callable[..., mx.array], *arrays: mx.array) -> list[mx.array]:
    """The function's value, and its gradients along a direction that is not all ones."""

    def along(*given: mx.array) -> mx.array:
        out = function(*given)
        return (out * mx.cos(mx.arange(out.size)).reshape(out.shape)).sum()

    return [function(*arrays), *mx.grad(along, argnums=tuple(range(len(arrays))))(*arrays)]


def assert_close(got: list[mx.array], expected: list[mx.array]) -> None:
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def normal(*shape: int, seed: int = 0, dtype: mx.Dtype = mx.float32) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed)).astype(dtype)
