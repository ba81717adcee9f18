import mlx.core as mx
import numpy as np

from blogtune.cpu.gelu import gelu, mlx_gelu


def test_gelu_is_mlxs() -> None:
    # The whole range in steps of 1/1000, in more than one part.
    x = mx.arange(-12_000, 12_000).reshape(2, -1) / 1000
    np.testing.assert_allclose(gelu(x), mlx_gelu(x), atol=1e-6)
    assert gelu(mx.array([-1e30, -1e4, 0.0, 1e4])).tolist() == [0.0, 0.0, 0.0, 1e4]


def test_other_types_go_to_mlx() -> None:
    x = mx.arange(-3, 3).astype(mx.bfloat16)
    assert mx.array_equal(gelu(x), mlx_gelu(x))
