"""Cached activations: the same loss and gradients, one state a token, and nothing left behind."""

from pathlib import Path

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from blogtune.models.blocks import starting
from blogtune.training.activation_cache import (
    ActivationCache,
    Storage,
    cache_bytes,
    shared_prefix,
)
from blogtune.training.examples import Batch, Example, make_batch
from tests import tiny
from tests.training.architectures import NAMES, adapted, assert_same, build, computed
from tests.training.oracle import simple_step

EXAMPLES = tiny.EXAMPLES
LONG = [Example(e.id, [*range(1, 11), *e.prompt], e.answer) for e in EXAMPLES]
# "a" is padded by nothing in one, by seven tokens in the other.
BATCHES = [
    pytest.param([0, 1], id="little padding"),
    pytest.param([2, 0], id="much padding"),
]


@pytest.mark.parametrize("storage", ["memory", "disk"])
@pytest.mark.parametrize("places", BATCHES)
@pytest.mark.parametrize("examples", [EXAMPLES, LONG], ids=["short prefix", "long prefix"])
@pytest.mark.parametrize("way", ["reference", "fast"])
@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_are_the_same_with_cached_activations(
    name: str,
    way: str,
    examples: list[Example],
    places: list[int],
    storage: Storage,
    tmp_path: Path,
) -> None:
    made = adapted(build(name))
    batch = make_batch([examples[place] for place in places])
    expected = simple_step(made.network, batch)
    cache = ActivationCache(made.network, 2, tiny.ALONE)
    assert list(cache.fill(examples, 2, storage, tmp_path)) == [2, 1]
    assert list(tmp_path.iterdir()) == []
    assert_same(computed(getattr(made, way)(cache), batch), expected, 1e-4)


@pytest.mark.parametrize("bits", [None, 4], ids=["plain", "quantized"])
def test_released_blocks_have_no_weights_and_change_no_step(bits: int | None) -> None:
    network = tiny.network()
    if bits is not None:
        nn.quantize(network, group_size=32, bits=bits)
    made = adapted(network)
    cache, batch = made.cache(EXAMPLES), make_batch(EXAMPLES[:2])
    expected = computed(made.fast(cache), batch)
    cache.release_weights()
    assert_same(computed(made.fast(cache), batch), expected, 0.0)
    layers = network.layers
    below = [array for _, array in tree_flatten([each.parameters() for each in layers[:-2]])]
    above = [array for _, array in tree_flatten([each.parameters() for each in layers[-2:]])]
    assert below
    assert {array.size for array in below} == {0}
    assert min(array.size for array in above) > 0


def test_what_all_prompts_begin_with_is_shared_where_caches_are_plain() -> None:
    assert shared_prefix(tiny.network(), LONG) == [*range(1, 11), 1, 5]
    # Its windows keep other caches than plain ones.
    assert shared_prefix(build("gemma3_text"), LONG) == []


def test_activations_keep_the_type_that_the_network_computes_in() -> None:
    network = tiny.network()
    network.set_dtype(mx.bfloat16)
    cache = ActivationCache(network, 2, tiny.ALONE)
    # One at a time nothing is shared, and what is computed of each is the same to the bit.
    batch = make_batch(EXAMPLES[:1])
    list(cache.fill(batch.examples, 1, "memory", Path()))
    expected = network(mx.array(batch.inputs))
    with starting(cache.blocks, 2, cache.states(batch)):
        logits = network(mx.array(batch.inputs))
    assert logits.dtype == mx.bfloat16
    assert mx.allclose(logits, expected, rtol=2e-2, atol=2e-2).item()


def test_there_is_one_state_for_each_token_that_is_read() -> None:
    network = tiny.network()
    cache = ActivationCache(network, 3, tiny.ALONE)
    list(cache.fill(EXAMPLES, 3, "memory", Path()))
    positions = sum(example.tokens - 1 for example in EXAMPLES)
    assert cache.all.shape == (positions, tiny.WIDTH)
    assert cache.all.nbytes == cache_bytes(network, 3, EXAMPLES)


def test_filled_anew_it_holds_the_new_examples(tmp_path: Path) -> None:
    made = adapted(tiny.network())
    cache, batch = made.cache(EXAMPLES[:1]), make_batch(EXAMPLES)
    list(cache.fill(EXAMPLES, 2, "memory", tmp_path))
    assert_same(computed(made.reference(cache), batch), simple_step(made.network, batch), 1e-4)


def test_a_process_caches_what_its_share_needs_and_more() -> None:
    made = adapted(tiny.network())
    cache = made.cache(EXAMPLES)
    mine: Batch | None = make_batch(EXAMPLES).share(1, 2)
    assert mine is not None
    assert_same(computed(made.fast(cache), mine), simple_step(made.network, mine), 1e-4)
