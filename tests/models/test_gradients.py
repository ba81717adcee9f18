"""Functions that bring their own gradient, and arrays that keep nothing."""

import mlx.core as mx
import numpy as np
import pytest

from blogtune.models.gradients import detach, detach_gradient, scalar_with_grad, with_gradient


def test_the_gradient_given_takes_the_place_of_the_true_one() -> None:
    doubled = with_gradient(lambda x: 2 * x, lambda _, cotangent, __: 7 * cotangent)
    value, gradient = mx.value_and_grad(lambda x: doubled(x).sum())(mx.ones(3))
    assert (float(value), gradient.tolist()) == (6.0, [7.0, 7.0, 7.0])


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_a_scalar_brings_its_gradient_times_what_it_is_multiplied_with(factor: float) -> None:
    known = mx.array([1.0, -2.0])

    def loss(x: mx.array) -> mx.array:
        return factor * scalar_with_grad(3.0, x, known)

    value, gradient = mx.value_and_grad(loss)(mx.zeros(2))
    assert float(value) == 3.0 * factor
    assert gradient.tolist() == (factor * known).tolist()


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
def test_a_detached_array_has_the_same_numbers_and_type(dtype: mx.Dtype) -> None:
    x = mx.random.normal((3, 4), key=mx.random.key(0)).astype(dtype)
    got = detach(x)
    assert got.dtype == dtype
    assert mx.array_equal(got, x)
    assert mx.grad(lambda x: detach(x).sum())(x).tolist() == np.zeros((3, 4)).tolist()


def test_a_gradient_that_is_detached_is_the_same_gradient() -> None:
    x = mx.array([1.0, 2.0])
    assert mx.grad(lambda x: (detach_gradient(x) ** 2).sum())(x).tolist() == [2.0, 4.0]
