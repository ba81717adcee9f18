"""Batches in one row: the same numbers, where the network's positions allow it."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blogtune.training.activation_cache import shared_prefix
from blogtune.training.examples import Example, make_batch
from blogtune.training.fast.packing import NotPackableError, may_be_packed, pack, placed
from tests import tiny
from tests.training.architectures import NAMES, adapted, assert_same, build, computed

EXAMPLES = tiny.EXAMPLES
# What keeps windows shares no prefix.
UNSHARED = {"gemma3_text"}
# Attention of its own, which nobody tells where what stands; and positions added to the embedding.
WRONG = {("gemma2", False), ("gemma2", True), ("gpt2", False)}
TOKENS = st.lists(st.integers(3, 99), min_size=1, max_size=6)


@given(prefix=TOKENS, texts=st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=5))
def test_a_row_holds_every_token_once_and_rows_tell_what_is_predicted(
    prefix: list[int], texts: list[tuple[list[int], list[int]]]
) -> None:
    examples = [Example(str(n), [*prefix, *p], a) for n, (p, a) in enumerate(texts)]
    batch = make_batch(examples)
    packed = pack(batch, len(prefix))
    assert packed.inputs.size == len(prefix) + sum(
        len(prompt) + len(answer) - 1 for prompt, answer in texts
    )
    # What stands at each row is the same token in both.
    assert packed.inputs.ravel()[packed.rows].tolist() == batch.inputs.ravel()[batch.rows].tolist()
    tokens = [np.array([*e.prompt, *e.answer][:-1], np.float32)[:, None] for e in examples]
    for each in (batch, packed):
        assert (each.arranged(tokens)[..., 0] == each.inputs).all()


@pytest.mark.parametrize("cached", [False, True], ids=["all blocks", "cached activations"])
@pytest.mark.parametrize("examples", [EXAMPLES, EXAMPLES[1:2]], ids=["three", "one"])
@pytest.mark.parametrize("name", NAMES)
def test_a_packed_batch_has_the_loss_and_gradients_of_a_padded_one(
    name: str, examples: list[Example], *, cached: bool
) -> None:
    made, batch = adapted(build(name)), make_batch(examples)
    prefix = len(shared_prefix(made.network, EXAMPLES))
    made.network.eval()
    cache = made.cache(EXAMPLES) if cached else None
    padded, packed = made.fast(cache), made.fast(cache, prefix)
    assert prefix == (0 if name in UNSHARED else 2)
    got, expected = computed(packed, batch), computed(padded, batch)
    if (name, cached) in WRONG and len(examples) > 1:
        # The proof before the first step finds it out.
        assert abs(float(got["loss"] / expected["loss"]) - 1) > 1e-3
        return
    assert_same(got, expected, 1e-5)
    validated = float(packed.validation_loss(batch))
    assert validated == pytest.approx(float(padded.validation_loss(batch)), rel=1e-5)


def test_a_row_beyond_longropes_change_is_not_packed() -> None:
    tokens = pack(make_batch(EXAMPLES), 2).inputs.size
    for length, packs in ((tokens, True), (tokens - 1, False)):
        network = tiny.network()
        network.layers[0].self_attn.rope.original_max_position_embeddings = length
        assert may_be_packed(network, EXAMPLES, 2) is packs
    assert may_be_packed(tiny.network(), EXAMPLES, 2)


@pytest.mark.parametrize("traditional", [False, True])
@pytest.mark.parametrize("dims", [6, 8])
@pytest.mark.parametrize("freqs", [None, [1.0, 7.0, 90.0, 400.0]], ids=["base", "freqs"])
def test_positions_of_a_row_are_those_of_each_text(
    freqs: list[float] | None, dims: int, *, traditional: bool
) -> None:
    packed = pack(make_batch(EXAMPLES), 2)
    base = 100.0 if freqs is None else None
    settings: dict[str, Any] = {"traditional": traditional, "base": base, "scale": 0.5}
    settings |= {"freqs": None if freqs is None else mx.array(freqs[: dims // 2])}
    x, direction = (
        mx.random.normal((1, 3, packed.inputs.size, 8), key=mx.random.key(n)) for n in (0, 1)
    )
    places = [0, 1, *(n for each in EXAMPLES for n in range(2, each.tokens - 1))]

    def along(turned: Callable[[mx.array], mx.array]) -> list[mx.array]:
        outputs, gradients = mx.vjp(turned, [x], [direction])
        return [*outputs, *gradients]

    def each_alone(x: mx.array) -> mx.array:
        tokens = mx.split(x, len(places), axis=2)
        turned = [
            mx.fast.rope(token, dims, offset=place, **settings)
            for token, place in zip(tokens, places, strict=True)
        ]
        return mx.concatenate(turned, axis=2)

    expected = along(each_alone)
    with placed(packed):
        got = along(lambda x: mx.fast.rope(x, dims, **settings, offset=0))
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_what_is_not_known_of_positions_is_refused() -> None:
    packed = pack(make_batch(EXAMPLES), 2)
    x = mx.zeros((1, 2, packed.inputs.size, 8))
    with placed(packed):
        with pytest.raises(NotPackableError):
            mx.fast.scaled_dot_product_attention(x, x, x, scale=1.0, mask=mx.array([True]))
        with pytest.raises(NotPackableError):
            mx.fast.rope(x, 8, traditional=False, base=100.0, scale=1.0, offset=1)


def test_a_padded_batch_changes_no_function() -> None:
    before = mx.fast.rope, mx.fast.scaled_dot_product_attention
    with placed(make_batch(EXAMPLES)):
        assert (mx.fast.rope, mx.fast.scaled_dot_product_attention) == before
