import mlx.core as mx
import pytest

from blogtune.cpu.attention import attention, mlx_attention
from tests.cpu.along import assert_close, normal, with_gradients

SHAPE = (2, 6, 5, 8)


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(None, id="no mask"),
        pytest.param("causal", id="causal"),
        pytest.param(mx.tril(mx.ones((5, 5))) > 0, id="one mask for all"),
        pytest.param(normal(2, 1, 5, 5) > -1, id="a mask for each row"),
        pytest.param(normal(5, 5), id="added"),
        pytest.param(normal(2, 6, 5, 5), id="added, one for each head"),
    ],
)
def test_attention_is_mlxs_in_value_and_gradients(mask: mx.array | str | None) -> None:
    arrays = normal(*SHAPE), normal(2, 3, 5, 8, seed=1), normal(2, 3, 5, 8, seed=2)
    got, expected = (
        with_gradients(lambda q, k, v, f=f: f(q, k, v, scale=0.35, mask=mask), *arrays)
        for f in (attention, mlx_attention)
    )
    assert_close(got, expected)


@pytest.mark.parametrize("mask", [None, "causal"], ids=str)
def test_attention_over_what_is_kept_of_earlier_tokens_is_mlxs(mask: str | None) -> None:
    queries, keys, values = normal(2, 6, 2, 8), normal(2, 3, 9, 8), normal(2, 3, 9, 8, seed=1)
    got = attention(queries, keys, values, scale=0.35, mask=mask)
    assert_close([got], [mlx_attention(queries, keys, values, scale=0.35, mask=mask)])


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_other_types_go_to_mlx(dtype: mx.Dtype) -> None:
    queries, keys = normal(*SHAPE, dtype=dtype), normal(2, 3, 5, 8, dtype=dtype)
    got = attention(queries, keys, keys, scale=0.35, mask="causal")
    assert got.dtype == dtype
    assert mx.array_equal(got, mlx_attention(queries, keys, keys, scale=0.35, mask="causal"))
