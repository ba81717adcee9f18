from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx import nn
from mlx.utils import tree_flatten
from scipy.special import log_softmax

from blogtune.models.head import RowHead, put_row_head
from blogtune.training import loss as losses
from blogtune.training.examples import Example, make_batch
from blogtune.training.lora import apply_lora
from blogtune.training.loss import (
    HostLoss,
    PieceLoss,
    answer_loss,
    answer_loss_value,
    cross_entropy,
    plain_loss,
    plain_weights,
)
from tests import tiny
from tests.training.architectures import NAMES, build, spread_adapters
from tests.training.oracle import full_logits, simple_loss

BATCH = make_batch(
    [
        Example("a", [1, 5, 6, 7], [8, 9, 2]),
        Example("b", [1, 5, 6, 7, 20, 21, 33, 40, 41], [8, 9, 3, 4, 2]),
    ]
)


def reference(logits: npt.NDArray[np.float32], targets: npt.NDArray[np.int32]) -> npt.NDArray:
    return log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(targets)), targets]


@given(
    rows=st.integers(1, 20),
    vocabulary=st.integers(2, 50),
    spread=st.sampled_from([0.0, 1.0, 30.0, 3000.0]),
    seed=st.integers(0, 99),
)
def test_cross_entropy_and_its_gradient_are_those_of_float64(
    rows: int, vocabulary: int, spread: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    logits = (spread * random.standard_normal((rows, vocabulary))).astype(np.float32)
    targets = random.integers(0, vocabulary, rows).astype(np.int32)
    kept = logits.copy()
    gradient = np.zeros_like(logits)
    loss = cross_entropy(logits, targets, gradient)
    assert loss == pytest.approx(-reference(logits, targets).sum(), rel=1e-5, abs=1e-5)
    expected = np.exp(log_softmax(logits.astype(np.float64), axis=1))
    expected[np.arange(rows), targets] -= 1.0
    np.testing.assert_allclose(gradient, expected, atol=1e-5)
    assert (logits == kept).all()


def test_very_negative_logits_have_a_loss() -> None:
    logits = np.array([[-200.0, -201.0, -202.0], [-95.0, -96.0, -95.5]], np.float32)
    targets = np.array([0, 1], np.int32)
    loss = cross_entropy(logits, targets, np.zeros_like(logits))
    assert loss == pytest.approx(-reference(logits, targets).sum(), rel=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_no_number_is_not_hidden(value: float) -> None:
    logits = np.zeros((2, 3), np.float32)
    logits[1, 1] = value
    loss = cross_entropy(logits, np.array([0, 1], np.int32), np.zeros_like(logits))
    assert not np.isfinite(loss)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_head_gives_the_full_logits_at_its_rows(name: str) -> None:
    network = build(name)
    network.eval()
    expected = full_logits(network, BATCH)
    head = put_row_head(network)
    logits = head.logits(network, BATCH.inputs, BATCH.rows)
    assert logits.shape == (len(BATCH.targets), 320)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "apart"])
def test_a_row_head_works_on_other_rows_each_time(tied: bool) -> None:
    network = tiny.network(tied=tied)
    expected = full_logits(network, BATCH)
    head = put_row_head(network)
    other = make_batch([Example("c", [1, 2, 3], [4])])
    assert head.logits(network, other.inputs, other.rows).shape[0] == 1
    logits = head.logits(network, BATCH.inputs, BATCH.rows)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_a_network_may_multiply_with_the_embedding_itself() -> None:
    """As MiniCPM and Seed-OSS do with tied weights: all rows are projected then."""
    network = tiny.network(tie_word_embeddings=True)
    tokens = mx.array([[5, 6, 7]])
    expected = network(tokens)

    class Own(type(network)):
        def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
            return self.model(inputs, cache) @ self.model.embed_tokens.weight.T

    network.__class__ = Own
    head = put_row_head(network)
    rows = np.array([1], np.int32)
    got = head.logits(network, np.array([[5, 6, 7]], np.int32), rows)
    np.testing.assert_allclose(got, expected[0, 1:2], rtol=1e-5)
    assert head.hidden(network, np.array([[5, 6, 7]], np.int32), rows) is None
    assert plain_weights(network, head) is None


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "apart"])
def test_a_row_head_adds_nothing_to_train(tied: bool) -> None:
    network = tiny.network(tied=tied)
    expected = apply_lora(network, tiny.train_params().lora)
    put_row_head(network)
    trained = tree_flatten(network.trainable_parameters())
    assert sum(array.size for _, array in trained) == expected


def adapted(name: str) -> Any:
    network = build(name)
    apply_lora(network, tiny.train_params(dropout=0.0).lora)
    spread_adapters(network)
    return network


def is_the_simple_one(network: Any, made: Callable[[RowHead], PieceLoss]) -> None:
    """The loss and the gradients of the adapters; and the loss without a gradient."""
    simple, expected = nn.value_and_grad(network, lambda m: simple_loss(m, BATCH, 5))(network)
    head = put_row_head(network)
    of_piece = made(head)
    loss, gradients = nn.value_and_grad(
        network, lambda m: answer_loss(m, head, BATCH, 5, of_piece)
    )(network)
    assert float(loss) == pytest.approx(float(simple), rel=1e-5)
    value = answer_loss_value(network, head, BATCH, of_piece)
    assert value / 5 == pytest.approx(float(simple), rel=1e-5)
    flat = dict(tree_flatten(expected))
    largest = max(float(mx.abs(array).max()) for array in flat.values())
    assert largest > 0
    for key, array in tree_flatten(gradients):
        np.testing.assert_allclose(array, flat[key], atol=1e-4 * largest, err_msg=key)


@pytest.fixture(params=[1, 3, 128], ids=lambda rows: f"{rows} rows at a time")
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "ROWS", request.param)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("of_piece", [HostLoss(), plain_loss])
@pytest.mark.parametrize("name", NAMES)
def test_the_loss_in_pieces_is_the_simple_one_in_value_and_gradient(
    name: str, of_piece: PieceLoss
) -> None:
    is_the_simple_one(adapted(name), lambda _: of_piece)


# Logits are capped or scaled behind the output layer; or that has another name here or is not used.
NOT_PLAIN = {"gemma2", "granite", "gpt2", "gpt_neox", "helium"}


@pytest.mark.parametrize("words", [7, 319, 1024])
@pytest.mark.parametrize("name", NAMES)
def test_the_loss_in_pieces_of_words_is_the_simple_one_in_value_and_gradient(
    name: str, words: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "WORDS", words)
    network = adapted(name)

    def in_words(head: RowHead) -> PieceLoss:
        weights = plain_weights(network, head)
        assert (weights is None) == (name in NOT_PLAIN)
        if weights is not None:
            monkeypatch.delattr(losses, "_in_rows")
        return HostLoss(weights)

    is_the_simple_one(network, in_words)


@given(
    rows=st.integers(1, 20),
    vocabulary=st.integers(2, 50),
    spread=st.sampled_from([0.0, 1.0, 20.0]),
    seed=st.integers(0, 99),
)
def test_pieces_of_words_give_what_float64_gives(
    rows: int, vocabulary: int, spread: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    hidden = random.standard_normal((rows, 8)).astype(np.float32)
    weights = (spread / 8 * random.standard_normal((vocabulary, 8))).astype(np.float32)
    targets = random.integers(0, vocabulary, rows).astype(np.int32)
    found = HostLoss(mx.array(weights)).in_words(mx.array(hidden), targets)
    assert found is not None
    logits = hidden.astype(np.float64) @ weights.T.astype(np.float64)
    chosen = log_softmax(logits, axis=1)
    assert found[0] == pytest.approx(-chosen[np.arange(rows), targets].sum(), rel=1e-5, abs=1e-4)
    shares = np.exp(chosen)
    shares[np.arange(rows), targets] -= 1.0
    np.testing.assert_allclose(found[1], shares @ weights, atol=1e-5 * max(1.0, spread))


def test_pieces_of_words_are_gone_one_after_the_other() -> None:
    """Also in a trace, which keeps what it sees."""
    rows, vocabulary = 64, 64 * losses.WORDS
    of_piece = HostLoss(mx.zeros((vocabulary, 8)))
    mx.eval(of_piece._weights)

    def loss(hidden: mx.array) -> mx.array:
        found = of_piece.in_words(2 * hidden, np.zeros(rows, np.int32))
        assert found is not None
        assert found[0] == pytest.approx(rows * np.log(vocabulary), rel=1e-5)
        return hidden.sum()

    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(mx.grad(loss)(mx.ones((rows, 8))))
    logits = rows * vocabulary * 4
    assert mx.get_peak_memory() - before < 0.1 * logits


@pytest.mark.parametrize("size", [-1000.0, 1000.0, np.nan])
def test_logits_out_of_range_are_left_to_the_way_in_rows(size: float) -> None:
    weights, hidden = mx.full((3, 2), size), mx.ones((4, 2))
    assert HostLoss(weights).in_words(hidden, np.zeros(4, np.int32)) is None


def test_an_output_layer_with_more_to_it_is_left_to_the_way_in_rows() -> None:
    def weights(network: Any) -> mx.array | None:
        return plain_weights(network, put_row_head(network))

    for tied in (True, False):
        network = tiny.network(tied=tied)
        assert weights(network) is not None
        nn.quantize(network, 32, 4)
        assert weights(network) is None
    with_bias = tiny.network(tied=False)
    with_bias.lm_head.bias = mx.ones(with_bias.lm_head.weight.shape[0])
    assert weights(with_bias) is None
    halved = tiny.network()
    halved.set_dtype(mx.float16)
    assert weights(halved) is None


def test_the_loss_is_over_answer_tokens_alone() -> None:
    network = tiny.network()
    expected = -reference(np.asarray(full_logits(network, BATCH)), BATCH.targets).sum() / 5
    assert float(simple_loss(network, BATCH, 5)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("most", "pieces"), [(2, [2, 2, 2, 2]), (7, [4, 4]), (3, [3, 3, 2])])
def test_pieces_have_no_more_logits_than_they_may_and_are_alike(
    most: int, pieces: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "ROWS", most)
    network, seen = tiny.network(), list[tuple[int, ...]]()

    def of_piece(logits: mx.array, targets: npt.NDArray[np.int32]) -> mx.array:
        seen.append(logits.shape)
        return plain_loss(logits, targets)

    answer_loss_value(network, put_row_head(network), BATCH, of_piece)
    assert [rows for rows, _ in seen] == pieces


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_the_host_loss_heeds_what_it_is_multiplied_with(factor: float) -> None:
    logits = mx.random.normal((5, 7), key=mx.random.key(1))
    targets = np.arange(5, dtype=np.int32)
    got, expected = (
        mx.grad(lambda x, of=of: factor * of(x, targets))(logits) for of in (HostLoss(), plain_loss)
    )
    assert got.dtype == mx.float32
    np.testing.assert_allclose(got, expected, atol=1e-6)
