"""Cross-entropy in chunks of rows: the whole one, in value and gradient, in every architecture."""

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from scipy.special import log_softmax

from blogtune.cpu.patches import patched
from blogtune.training import loss as losses
from blogtune.training.examples import Example, make_batch
from blogtune.training.loss import chunked_cross_entropy
from tests import tiny
from tests.training.architectures import NAMES, adapted, assert_same, build, computed
from tests.training.oracle import full_logits, simple_loss, simple_step

BATCH = make_batch(
    [
        Example("a", [1, 5, 6, 7], [8, 9, 2]),
        Example("b", [1, 5, 6, 7, 20, 21, 33, 40, 41], [8, 9, 3, 4, 2]),
    ]
)


@pytest.mark.parametrize("rows", [1, 3, 128], ids="{} rows at a time".format)
@pytest.mark.parametrize("cpu", [False, True], ids=["MLX's", "the CPU's"])
@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_in_chunks_are_the_simple_ones(
    name: str, cpu: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "CHUNK_ROWS", rows)
    made = adapted(build(name))
    expected = simple_step(made.network, BATCH)
    step = made.reference()
    with patched(cross_entropy=cpu):
        assert_same(computed(step, BATCH), expected, 1e-4)
        value = float(step.validation_loss(BATCH))
    assert value == pytest.approx(float(expected["loss"]), rel=1e-5)


def test_the_loss_is_over_answer_tokens_alone() -> None:
    network = tiny.network()
    logits = np.asarray(full_logits(network, BATCH)).astype(np.float64)
    chosen = log_softmax(logits, axis=1)[np.arange(len(BATCH.targets)), BATCH.targets]
    assert float(simple_loss(network, BATCH)) == pytest.approx(-chosen.sum(), rel=1e-5)


@pytest.mark.parametrize(("most", "chunks"), [(2, [2, 2, 2, 2]), (7, [4, 4]), (3, [3, 2, 3])])
def test_chunks_have_no_more_logits_than_they_may_and_are_alike(
    most: int, chunks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "CHUNK_ROWS", most)
    seen, weight = list[int](), mx.random.normal((5, 9), key=mx.random.key(0))

    def project(hidden: mx.array) -> mx.array:
        seen.append(len(hidden))
        return hidden @ weight

    chunked_cross_entropy(mx.ones((8, 5)), np.zeros(8, np.int32), project)
    assert seen == chunks


def test_of_many_chunks_no_more_than_one_has_its_logits_in_memory() -> None:
    rows, vocabulary = 4 * losses.CHUNK_ROWS, 4096
    weight = mx.random.normal((8, vocabulary), key=mx.random.key(0))
    targets = np.zeros(rows, np.int32)

    def loss(hidden: mx.array) -> mx.array:
        return chunked_cross_entropy(2 * hidden, targets, lambda hidden: hidden @ weight)

    hidden = mx.ones((rows, 8))
    mx.eval(hidden, weight)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    with patched(cross_entropy=True):
        mx.eval(mx.grad(loss)(hidden))
    # Of a chunk its logits and the gradient at them.
    assert mx.get_peak_memory() - before < 3.5 * losses.CHUNK_ROWS * vocabulary * 4


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_nan_is_not_hidden(value: float) -> None:
    hidden = mx.array([[0.0, 0.0], [0.0, value]])
    for cpu in (False, True):
        with patched(cross_entropy=cpu):
            loss = chunked_cross_entropy(hidden, np.array([0, 1], np.int32), lambda x: x)
        assert not np.isfinite(float(loss))


def test_it_heeds_what_it_is_multiplied_with() -> None:
    logits = mx.random.normal((5, 7), key=mx.random.key(1))
    targets = np.arange(5, dtype=np.int32)
    got = mx.grad(lambda x: 0.5 * chunked_cross_entropy(x, targets, lambda x: x))(logits)
    whole = mx.grad(lambda x: 0.5 * nn.losses.cross_entropy(x, mx.array(targets)).sum())(logits)
    np.testing.assert_allclose(got, whole, atol=1e-6)
