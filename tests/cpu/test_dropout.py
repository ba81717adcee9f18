from collections.abc import Iterator

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn

from blogtune.cpu.dropout import LEVELS
from blogtune.cpu.patches import patched
from tests.cpu.along import normal


@pytest.fixture(autouse=True)
def _in_place() -> Iterator[None]:
    with patched(dropout=True):
        yield


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16], ids=str)
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(share: float, dtype: mx.Dtype) -> None:
    layer, x = nn.Dropout(share), mx.ones((301, 1003), dtype)
    mx.random.seed(5)
    out = layer(x)
    assert out.dtype == dtype
    values = np.asarray(out.astype(mx.float32))
    dropped = float((values == 0).mean())
    # Six standard deviations of 301,903 draws.
    assert dropped == pytest.approx(share, abs=6 * (share * (1 - share) / values.size) ** 0.5)
    np.testing.assert_allclose(values[values != 0], 1 / (1 - share), rtol=1e-3)
    # No row, column or neighbour knows of another.
    zeros = (values == 0) - share
    for one, other in ((zeros[1:], zeros[:-1]), (zeros[:, 1:], zeros[:, :-1])):
        assert abs(float((one * other).mean())) < 6 * share * (1 - share) / values.size**0.5


def test_nearly_all_may_be_dropped() -> None:
    out = np.asarray(nn.Dropout(1 - 1e-8)(mx.ones((1000, 1000))))
    assert set(np.unique(out)) <= {0.0, LEVELS}
    assert 0 < (out > 0).sum() < 100


def test_dropout_follows_from_the_random_state_and_draws_anew_each_time() -> None:
    layer, x = nn.Dropout(0.5), mx.ones((4, 33))

    def drawn(seed: int) -> list[mx.array]:
        mx.random.seed(seed)
        return [layer(x), layer(x)]

    first, second = drawn(1)
    assert mx.array_equal(first, drawn(1)[0])
    assert not mx.array_equal(first, second)
    assert not mx.array_equal(first, drawn(2)[0])


def test_dropout_passes_the_gradient_of_what_it_kept_and_sleeps_outside_of_training() -> None:
    layer, x = nn.Dropout(0.5), normal(7, 9)
    mx.random.seed(1)
    kept = layer(x) / x
    mx.random.seed(1)
    gradient = mx.grad(lambda x: layer(x).sum())(x)
    np.testing.assert_allclose(gradient, kept, rtol=1e-6)
    assert mx.array_equal(layer.eval()(x), x)
    assert mx.array_equal(nn.Dropout(0.0)(x), x)
