import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from blogtune.cpu.cross_entropy import cross_entropy, mlx_cross_entropy, value_and_gradient


def reference(logits: npt.NDArray[np.float32], targets: npt.NDArray[np.int32]) -> npt.NDArray:
    return log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(targets)), targets]


@given(
    rows=st.integers(1, 20),
    vocabulary=st.integers(2, 50),
    spread=st.sampled_from([0.0, 1.0, 30.0, 3000.0]),
    seed=st.integers(0, 99),
)
def test_value_and_gradient_are_those_of_float64(
    rows: int, vocabulary: int, spread: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    logits = (spread * random.standard_normal((rows, vocabulary))).astype(np.float32)
    targets = random.integers(0, vocabulary, rows).astype(np.int32)
    kept = logits.copy()
    gradient = np.zeros_like(logits)
    loss = value_and_gradient(logits, targets, gradient)
    assert loss == pytest.approx(-reference(logits, targets).sum(), rel=1e-5, abs=1e-5)
    expected = np.exp(log_softmax(logits.astype(np.float64), axis=1))
    expected[np.arange(rows), targets] -= 1.0
    np.testing.assert_allclose(gradient, expected, atol=1e-5)
    assert (logits == kept).all()


def test_very_negative_logits_have_a_loss() -> None:
    logits = np.array([[-200.0, -201.0, -202.0], [-95.0, -96.0, -95.5]], np.float32)
    targets = np.array([0, 1], np.int32)
    loss = value_and_gradient(logits, targets, np.zeros_like(logits))
    assert loss == pytest.approx(-reference(logits, targets).sum(), rel=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_no_number_is_not_hidden(value: float) -> None:
    logits = np.zeros((2, 3), np.float32)
    logits[1, 1] = value
    loss = value_and_gradient(logits, np.array([0, 1], np.int32), np.zeros_like(logits))
    assert not np.isfinite(loss)


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_it_heeds_what_it_is_multiplied_with(factor: float) -> None:
    logits = mx.random.normal((5, 7), key=mx.random.key(1))
    targets = mx.arange(5)
    got, expected = (
        mx.grad(lambda x, of=of: factor * of(x, targets, reduction="sum"))(logits)
        for of in (cross_entropy, mlx_cross_entropy)
    )
    assert got.dtype == mx.float32
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "reduction"), [(mx.bfloat16, "sum"), (mx.float32, "none"), (mx.float32, "mean")]
)
def test_what_it_does_not_know_goes_to_mlx(dtype: mx.Dtype, reduction: str) -> None:
    logits = mx.random.normal((5, 7), key=mx.random.key(1)).astype(dtype)
    got = cross_entropy(logits, mx.arange(5), reduction=reduction)
    assert mx.array_equal(got, mlx_cross_entropy(logits, mx.arange(5), reduction=reduction))


def test_the_sum_over_a_large_vocabulary_is_exact_where_mlx_s_is_not() -> None:
    logits = mx.random.normal((4, 49_152), key=mx.random.key(2)) * 3
    wide = np.asarray(logits).astype(np.float64)
    exact = -log_softmax(wide, axis=1)[np.arange(4), np.arange(4)].sum()
    assert float(cross_entropy(logits, mx.arange(4), reduction="sum")) == pytest.approx(
        exact, rel=1e-7
    )
