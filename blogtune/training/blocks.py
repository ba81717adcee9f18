"""A network's blocks, some of them exchanged for stand-ins while a part of it is computed.

The network's own code then runs around them, and no block is written a second time.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
from mlx import nn


class NotAStackError(Exception):
    """The network does not call the blocks of one list, one after the other."""


class ReachedError(Exception):
    """A block was called that ends the pass; it was given `states`."""

    def __init__(self, states: mx.array) -> None:
        super().__init__()
        self.states = states


class StandIn:
    """Takes a block's place: returns the array it holds, or else what it was given."""

    def __init__(self, block: Any) -> None:
        self.block = block
        self.held: mx.array | None = None

    def __call__(self, x: mx.array, *_: Any, **__: Any) -> mx.array:
        return x if self.held is None else self.held

    def __getattr__(self, name: str) -> Any:
        return getattr(self.block, name)


class End(StandIn):
    """Takes a block's place and ends the pass there: what is above it is not computed."""

    def __call__(self, x: mx.array, *_: Any, **__: Any) -> mx.array:
        raise ReachedError(x)


class _AtRows(nn.Module):
    """Takes an MLP's place and computes it at some rows of the flattened input; 0 elsewhere."""

    def __init__(self, inner: Any, rows: mx.array) -> None:
        super().__init__()
        self.inner = inner
        self._rows = rows

    def __call__(self, x: mx.array) -> mx.array:
        rows = x.reshape(-1, x.shape[-1])
        out = self.inner(rows[self._rows][None])[0]
        return mx.zeros(rows.shape, out.dtype).at[self._rows].add(out).reshape(x.shape)


@contextmanager
def mlp_at(block: Any, rows: Any) -> Generator[None]:
    """While the block runs, the MLP of this block of a network is computed at those rows alone.

    Of the last block nothing else is seen. One whose MLP has another name is left as it is.
    """
    mlp = block.get("mlp")
    if mlp is None:
        yield
        return
    block.mlp = _AtRows(mlp, mx.array(rows))
    try:
        yield
    finally:
        block.mlp = mlp


def list_of_blocks(network: Any) -> list[Any]:
    """The list that the network itself walks: `network.layers` is a copy of it in some."""
    first = network.layers[0]
    lists = (value for module in network.modules() for value in module.values())
    return next(v for v in lists if isinstance(v, list) and v and v[0] is first)


@contextmanager
def exchanged(
    blocks: list[Any], places: range, kind: type[StandIn] = StandIn
) -> Generator[list[StandIn]]:
    """While the block runs, stand-ins are in those places of the network's list."""
    own = blocks[places.start : places.stop]
    stand_ins = [kind(block) for block in own]
    blocks[places.start : places.stop] = stand_ins
    try:
        yield stand_ins
    finally:
        blocks[places.start : places.stop] = own


@contextmanager
def starting(blocks: list[Any], place: int, states: mx.array) -> Generator[None]:
    """While the block runs, the network starts with `states` at the block in this place.

    The first block of all is given what the network gives it.
    """
    with exchanged(blocks, range(place)) as stand_ins:
        for stand_in in stand_ins:
            stand_in.held = states
        yield


def entering(
    network: Any, blocks: list[Any], place: int, inputs: Any, cache: Any = None
) -> mx.array:
    """What enters the block in this place, (examples, length, width); no block above is computed.

    `blocks` is the network's own list. Raises NotAStackError where that block is never called.
    """
    with exchanged(blocks, range(place, place + 1), End):
        try:
            network(mx.array(inputs), cache=cache)
        except ReachedError as reached:
            return reached.states
    raise NotAStackError
