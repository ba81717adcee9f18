"""Blocks exchanged for stand-ins: a part of the network is computed, and all is as it was after."""

from typing import Any

import mlx.core as mx
import pytest

from blogtune.models.blocks import StandIn, entering, list_of_blocks, starting
from blogtune.training.examples import make_batch
from tests import tiny
from tests.training.architectures import NAMES, build

BATCH = make_batch(tiny.EXAMPLES)


class Counting(StandIn):
    """A block that tells when it is called."""

    def __init__(self, block: Any, number: int, called: list[int]) -> None:
        super().__init__(block)
        self.number, self.called = number, called

    def __call__(self, x: mx.array, *inputs: Any, **named: Any) -> mx.array:
        self.called.append(self.number)
        return self.block(x, *inputs, **named)


@pytest.mark.parametrize("name", NAMES)
def test_what_enters_a_block_is_found_without_computing_it_or_what_is_above(name: str) -> None:
    network = build(name)
    blocks, called = list_of_blocks(network), list[int]()
    own = list(blocks)
    blocks[:] = [Counting(block, number, called) for number, block in enumerate(own)]
    states = entering(network, blocks, 2, BATCH.inputs)
    assert called == [0, 1]
    assert states is not None
    assert states.shape == (*BATCH.inputs.shape, 64)
    blocks[:] = own


@pytest.mark.parametrize("name", NAMES)
def test_a_network_that_starts_with_what_entered_a_block_ends_as_before(name: str) -> None:
    network = build(name)
    network.eval()
    blocks = list_of_blocks(network)
    states = entering(network, blocks, 2, BATCH.inputs)
    assert states is not None
    with starting(blocks, 2, states):
        got = network(mx.array(BATCH.inputs))
    assert mx.array_equal(got, network(mx.array(BATCH.inputs)))


def test_a_block_that_is_not_called_is_not_entered() -> None:
    network = tiny.network()
    assert entering(network, [StandIn(None)], 0, BATCH.inputs) is None


@pytest.mark.parametrize("name", ["llama", "qwen2"], ids=["its own list", "a copied list"])
def test_the_blocks_come_back_also_after_an_error(name: str) -> None:
    network = build(name)
    own, blocks = list(network.layers), list_of_blocks(network)
    states = entering(network, blocks, 2, BATCH.inputs)
    assert states is not None
    assert all(a is b for a, b in zip(network.layers, own, strict=True))

    def interrupt() -> None:
        with starting(blocks, 2, states):
            assert network.layers[0] is not own[0]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert all(a is b for a, b in zip(network.layers, own, strict=True))
