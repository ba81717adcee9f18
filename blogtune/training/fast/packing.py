"""A batch in one row: what all examples begin with once, and behind it what is left of each.

Where nothing is dropped, the states of that prefix are the same in every example, and the gradient
there is the sum of theirs. The network's own code runs on the row as on one long text; only the
functions that look at positions, rotary ones and attention, are told where what stands.
"""

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import mlx.core as mx
import numpy as np

from blogtune.cpu.patches import over
from blogtune.models.gradients import with_gradient
from blogtune.training.examples import Batch, Example, States


class NotPackableError(Exception):
    """The network looks at positions in a way that is not known here."""


@dataclass(frozen=True)
class PackedBatch(Batch):
    """A batch whose inputs are one row; `prefix` tokens are those that all examples begin with."""

    prefix: int

    def arranged(self, states: Sequence[States]) -> States:
        rests = [each[self.prefix :] for each in states]
        return np.concatenate([states[0][: self.prefix], *rests])[None]

    def ends(self) -> list[int]:
        """Where the prefix and what is left of each example end in the row."""
        rests = [example.tokens - 1 - self.prefix for example in self.examples]
        return np.cumsum([self.prefix, *rests]).tolist()


def pack(batch: Batch, prefix: int) -> PackedBatch:
    """The batch in one row. All its prompts begin with the same `prefix` tokens, and have more."""
    rests = [[*each.prompt, *each.answer][prefix:-1] for each in batch.examples]
    row = chain(batch.examples[0].prompt[:prefix], *rests)
    ends = prefix + np.cumsum([len(rest) for rest in rests])
    answers = [
        np.arange(end - len(example.answer), end)
        for example, end in zip(batch.examples, ends, strict=True)
    ]
    inputs, rows = np.fromiter(row, np.int32)[None], np.concatenate(answers).astype(np.int32)
    return PackedBatch(batch.examples, inputs, rows, batch.targets, prefix)


def may_be_packed(network: Any, longest: Sequence[Example], prefix: int) -> bool:
    """Whether a row of these examples stays below the length at which frequencies change.

    LongRoPE (Ding et al. 2024, arXiv 2402.13753) has two sets of them.
    """
    tokens = prefix + sum(example.tokens - 1 - prefix for example in longest)
    changes = (getattr(m, "original_max_position_embeddings", math.inf) for m in network.modules())
    return tokens <= min(changes, default=math.inf)


@contextmanager
def placed(batch: Batch) -> Generator[None]:
    """While the block runs, the network finds each example of a packed batch in its place.

    In it NotPackableError is raised where it cannot be told.
    """
    if not isinstance(batch, PackedBatch):
        yield
        return
    places = [np.arange(batch.prefix)]
    places += [np.arange(batch.prefix, each.tokens - 1) for each in batch.examples]
    rope = partial(_rope, mx.fast.rope, mx.array(np.concatenate(places)))
    attention = partial(_attention, mx.fast.scaled_dot_product_attention, batch.ends())
    with (
        over(mx.fast, "rope", rope),
        over(mx.fast, "scaled_dot_product_attention", attention),
    ):
        yield


def _rope(
    rope: Any,
    places: mx.array,
    x: mx.array,
    dims: int,
    *,
    scale: float,
    offset: Any = 0,
    **named: Any,
) -> mx.array:
    """Rotary positions of a row, (1, heads, length, width): its tokens stand at those places."""
    if x.shape[0] != 1 or x.shape[2] != places.size or not isinstance(offset, int) or offset:
        raise NotPackableError

    def turned(x: mx.array, scale: float) -> mx.array:
        # Each token is a text of one, and begins at its place.
        out = rope(x.transpose(2, 1, 0, 3), dims, scale=scale, offset=places, **named)
        return out.transpose(2, 1, 0, 3)

    def forward(x: mx.array) -> mx.array:
        return turned(x, scale)

    def backward(_: mx.array, cotangent: mx.array, __: mx.array) -> mx.array:
        return turned(cotangent, -scale)

    return with_gradient(forward, backward)(x)


def _attention(
    attention: Any,
    ends: list[int],
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    *,
    mask: mx.array | str | None = None,
    **named: Any,
) -> mx.array:
    """Causal attention in which each example sees the prefix and itself."""
    if not isinstance(mask, str) or not queries.shape[2] == keys.shape[2] == ends[-1]:
        raise NotPackableError
    asked, known, given = (mx.split(each, ends[:-1], axis=2) for each in (queries, keys, values))
    out = [attention(asked[0], known[0], given[0], mask="causal", **named)]
    for place in range(1, len(ends)):
        seen, told = (mx.concatenate([each[0], each[place]], axis=2) for each in (known, given))
        out.append(attention(asked[place], seen, told, mask="causal", **named))
    return mx.concatenate(out, axis=2)
