import mlx.core as mx
import pytest

from blogtune.cpu.swiglu import mlx_swiglu, swiglu
from tests.cpu.along import assert_close, normal, with_gradients


# The last is longer than one part, and does not end with one.
@pytest.mark.parametrize("shape", [(1,), (2, 3, 8), (3, 7001)], ids=str)
def test_swiglu_is_mlx_lms_in_value_and_gradients(shape: tuple[int, ...]) -> None:
    arrays = normal(*shape), normal(*shape, seed=1)
    got = with_gradients(swiglu, *arrays)
    assert_close(got, with_gradients(mlx_swiglu, *arrays))


def test_swiglu_at_the_ends_of_float32_is_0_or_the_product() -> None:
    gate = mx.array([-1e30, -200.0, -100.0, 0.0, 200.0])
    assert swiglu(gate, mx.ones(5)).tolist() == [0.0, 0.0, 0.0, 0.0, 200.0]


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_other_types_go_to_mlx_lm(dtype: mx.Dtype) -> None:
    x = normal(2, 6, 5, 8, dtype=dtype)
    assert mx.array_equal(swiglu(x, x), mlx_swiglu(x, x))
