"""What all examples begin with, read once by the frozen blocks and not once for each of them.

A chat template puts the same system message in front of every question: a fifth of the default's
tokens. In the blocks that learn nothing is shared: there these few rows would go through each step
by themselves, and what that costs is what it spares (measured: 3% of a step were left).
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache, make_prompt_cache

from blogtune.models.prefix import common_beginning
from blogtune.training.examples import Example


class Front(KVCache):
    """Keeps one block's keys and values of the beginning, and puts them in front of every row's.

    keys, values: (1, heads, tokens, width). In the place of the cache that the network's own code
    fills, which would keep the rows' too.
    """

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        if self.empty():
            self.keys, self.values = keys, values
            return keys, values
        return _joined(self.keys, keys), _joined(self.values, values)


def shared_beginning(network: Any, examples: Sequence[Example]) -> list[int]:
    """The tokens that may be shared; none where the network keeps other caches than plain ones."""
    plain = all(type(cache) is KVCache for cache in make_prompt_cache(network))
    return common_beginning([example.prompt for example in examples]) if plain else []


def fronts(network: Any) -> list[Front]:
    """One for each block, still empty."""
    return [Front() for _ in network.layers]


def stand_behind(caches: Sequence[Front], tokens: int) -> None:
    """From here on positions and masks are those of what follows so many tokens."""
    for cache in caches:
        cache.offset = tokens


def _joined(front: mx.array, rows: mx.array) -> mx.array:
    shape = (rows.shape[0], *front.shape[1:])
    return mx.concatenate([mx.broadcast_to(front, shape), rows], axis=2)
