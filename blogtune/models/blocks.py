"""A network's blocks, some of them exchanged for stand-ins while a part of it is computed.

The network's own code then runs around them, and no block is written a second time.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx


class StandIn:
    """Takes a block's place and hands on what it was given."""

    def __init__(self, block: Any) -> None:
        self.block = block

    def __call__(self, x: mx.array, *_: Any, **__: Any) -> mx.array:
        return x

    def __getattr__(self, name: str) -> Any:
        return getattr(self.block, name)


class Held(StandIn):
    """Hands on the array that it holds, whatever it was given."""

    def __init__(self, block: Any, states: mx.array) -> None:
        super().__init__(block)
        self.states = states

    def __call__(self, *_: Any, **__: Any) -> mx.array:
        return self.states


class Watched(StandIn):
    """Hands on what it was given, and keeps it."""

    def __init__(self, block: Any) -> None:
        super().__init__(block)
        self.given: mx.array | None = None

    def __call__(self, x: mx.array, *_: Any, **__: Any) -> mx.array:
        self.given = x
        return x


def list_of_blocks(network: Any) -> list[Any]:
    """The list that the network itself walks: `network.layers` is a copy of it in some."""
    first = network.layers[0]
    lists = (value for module in network.modules() for value in module.values())
    return next(v for v in lists if isinstance(v, list) and v and v[0] is first)


@contextmanager
def exchanged(blocks: list[Any], stand_ins: dict[int, Any]) -> Generator[None]:
    """While the block runs, the stand-ins are in their places of the network's own list."""
    own = {place: blocks[place] for place in stand_ins}
    for place, stand_in in stand_ins.items():
        blocks[place] = stand_in
    try:
        yield
    finally:
        for place, block in own.items():
            blocks[place] = block


@contextmanager
def starting(blocks: list[Any], place: int, states: mx.array) -> Generator[None]:
    """While the block runs, the network starts with `states` at the block in this place (>= 1)."""
    below = {number: Held(blocks[number], states) for number in range(place)}
    with exchanged(blocks, below):
        yield


def entering(
    network: Any, blocks: list[Any], place: int, inputs: Any, cache: Any = None
) -> mx.array | None:
    """What enters the block in this place, (examples, length, width); no block above is computed.

    `blocks` is the network's own list. None where that block is never called.
    """
    above: dict[int, Any] = {p: StandIn(blocks[p]) for p in range(place + 1, len(blocks))}
    watched = Watched(blocks[place])
    with exchanged(blocks, {**above, place: watched}):
        # What it makes of that is never asked for, and so never computed.
        network(mx.array(inputs), cache=cache)
    return watched.given
