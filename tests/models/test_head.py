"""The output layer apart from the network below it, in every architecture."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from blogtune.models.head import OutputLayer, Whole, open_head
from blogtune.training.examples import Example, make_batch
from blogtune.training.lora import apply_lora
from tests import tiny
from tests.training.architectures import NAMES, build
from tests.training.oracle import full_logits

BATCH = make_batch(
    [
        Example("a", [1, 5, 6, 7], [8, 9, 2]),
        Example("b", [1, 5, 6, 7, 20, 21, 33, 40, 41], [8, 9, 3, 4, 2]),
    ]
)


@pytest.mark.parametrize("name", NAMES)
def test_hidden_rows_projected_are_the_full_logits_at_these_rows(name: str) -> None:
    network = build(name)
    network.eval()
    expected = full_logits(network, BATCH)
    head = open_head(network)
    logits = head.project(head.hidden(BATCH.inputs, BATCH.rows))
    assert logits.shape == (len(BATCH.targets), 320)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    # Nothing is left behind of a part that was computed.
    np.testing.assert_allclose(full_logits(network, BATCH), expected, atol=1e-6)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "apart"])
def test_other_rows_are_taken_each_time(tied: bool) -> None:
    network = tiny.network(tied=tied)
    expected = full_logits(network, BATCH)
    head = open_head(network)
    other = make_batch([Example("c", [1, 2, 3], [4])])
    assert head.project(head.hidden(other.inputs, other.rows)).shape[0] == 1
    logits = head.project(head.hidden(BATCH.inputs, BATCH.rows))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_no_logit_is_computed_for_hidden_rows() -> None:
    network = tiny.network(tied=False)
    head, seen = open_head(network), list[tuple[int, ...]]()

    class Watched(nn.Linear):
        def __call__(self, x: mx.array) -> mx.array:
            seen.append(x.shape)
            return super().__call__(x)

    network.lm_head.inner.__class__ = Watched
    hidden = head.hidden(BATCH.inputs, BATCH.rows)
    assert seen == []
    head.project(hidden[:3])
    assert seen == [(3, tiny.WIDTH)]


def test_a_network_may_multiply_with_the_embedding_itself() -> None:
    """As MiniCPM and Seed-OSS do with tied weights: all rows are projected then."""
    network = tiny.network(tie_word_embeddings=True)
    tokens = mx.array([[5, 6, 7]])
    expected = network(tokens)

    class Own(type(network)):
        def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
            return self.model(inputs, cache) @ self.model.embed_tokens.weight.T

    network.__class__ = Own
    head = open_head(network)
    assert isinstance(head, Whole)
    got = head.project(head.hidden(np.array([[5, 6, 7]], np.int32), np.array([1], np.int32)))
    np.testing.assert_allclose(got, expected[0, 1:2], rtol=1e-5)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "apart"])
def test_it_adds_nothing_to_train_and_is_wrapped_once(tied: bool) -> None:
    network = tiny.network(tied=tied)
    expected = apply_lora(network, tiny.train_params().lora)
    first, again = open_head(network), open_head(network)
    assert isinstance(first, OutputLayer)
    assert isinstance(again, OutputLayer)
    assert first.layer is again.layer
    trained = tree_flatten(network.trainable_parameters())
    assert sum(array.size for _, array in trained) == expected


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "apart"])
def test_a_quantized_output_layer_projects_as_the_network_does(tied: bool) -> None:
    network = tiny.network(tied=tied)
    nn.quantize(network, 32, 4)
    expected = full_logits(network, BATCH)
    head = open_head(network)
    logits = head.project(head.hidden(BATCH.inputs, BATCH.rows))
    np.testing.assert_allclose(logits, expected, atol=1e-5)
