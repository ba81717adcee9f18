"""Norms and rotary positions whose traces keep their input alone: the same numbers."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from blogtune.training import lean as module
from blogtune.training.lean import lean, mlx_rms_norm, mlx_rope


@pytest.mark.parametrize("traditional", [False, True])
@pytest.mark.parametrize("offset", [0, 3])
@pytest.mark.parametrize("freqs", [None, mx.array([1.0, 7.0, 90.0])], ids=["base", "freqs"])
def test_positions_turned_back_are_their_gradient(
    freqs: mx.array | None, offset: int, *, traditional: bool
) -> None:
    x, direction = (mx.random.normal((2, 3, 5, 8), key=mx.random.key(n)) for n in (0, 1))
    base = None if freqs is not None else 100.0
    settings = {"traditional": traditional, "base": base, "offset": offset, "freqs": freqs}

    def along(function: Any) -> list[mx.array]:
        outputs, gradients = mx.vjp(
            lambda x: function(x, 6, scale=0.5, **settings), [x], [direction]
        )
        return [*outputs, *gradients]

    for got, expected in zip(along(module._rope), along(mlx_rope), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("weight", [None, mx.array([0.5, 1.0, -2.0, 3.0])], ids=["bare", "weight"])
def test_a_norm_is_mlxs_in_value_and_gradient(weight: mx.array | None) -> None:
    x, direction = (mx.random.normal((2, 3, 4), key=mx.random.key(n)) for n in (0, 1))

    def along(function: Any) -> list[mx.array]:
        outputs, gradients = mx.vjp(lambda x: function(x, weight, 1e-5), [x], [direction])
        return [*outputs, *gradients]

    for got, expected in zip(along(module._rms_norm), along(mlx_rms_norm), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_mlxs_functions_are_back_afterwards_whatever_happens() -> None:
    def failing() -> None:
        with lean():
            assert mx.fast.rope is not mlx_rope
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert (mx.fast.rope, mx.fast.rms_norm) == (mlx_rope, mlx_rms_norm)
