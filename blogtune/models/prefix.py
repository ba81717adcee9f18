"""What several prompts begin with in common, which is read once for all of them."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache, make_prompt_cache


def common_prefix(prompts: Sequence[list[int]]) -> list[int]:
    """What all prompts begin with, without the last token of any: that one is left to be read."""
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


def plain_caches(network: Any) -> list[KVCache]:
    """Empty caches, one a layer; none where a layer keeps other things than all keys and values."""
    caches = make_prompt_cache(network)
    return caches if all(type(cache) is KVCache for cache in caches) else []


def read(network: Any, tokens: Sequence[int], caches: list[Any]) -> list[Any]:
    """The caches, one a layer, behind these tokens; no logits are computed."""
    network(mx.array([tokens]), cache=caches)
    mx.eval([cache.state for cache in caches])
    return caches


def repeated(cache: KVCache, rows: int) -> KVCache:
    """A layer's keys and values for as many rows, without a copy of them."""
    several = KVCache()
    if cache.empty():
        return several
    for name in ("keys", "values"):
        one = getattr(cache, name)[..., : cache.offset, :]
        setattr(several, name, mx.broadcast_to(one, (rows, *one.shape[1:])))
    several.offset = cache.offset
    return several
