"""Batches in one row: what all examples begin with once, and behind it what is left of each.

Where nothing is dropped, the states of that beginning are the same in every example, and the
gradient there is the sum of theirs. The network's own code runs on the row as on one long text;
only the functions that look at positions, rotary ones and attention, are told where what stands.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from blogtune.training.examples import Batch

States = npt.NDArray[np.float32]


class NotPackableError(Exception):
    """The network looks at positions in a way that is not known here."""


def pack(batch: Batch, beginning: int) -> Batch:
    """The batch in one row of tokens.

    All its prompts begin with the same `beginning` tokens, and have one more at least.
    """
    rests = [[*each.prompt, *each.answer][beginning:-1] for each in batch.examples]
    row = chain(batch.examples[0].prompt[:beginning], *rests)
    ends = beginning + np.cumsum([len(rest) for rest in rests])
    answers = [
        np.arange(end - len(example.answer), end)
        for example, end in zip(batch.examples, ends, strict=True)
    ]
    inputs, rows = np.fromiter(row, np.int32)[None], np.concatenate(answers).astype(np.int32)
    return Batch(batch.examples, inputs, rows, batch.targets, beginning)


def arranged(batch: Batch, states: Sequence[States]) -> States:
    """Each example's states, (tokens, width), as the batch's inputs lie, padded with 0."""
    out = np.zeros((*batch.inputs.shape, states[0].shape[-1]), np.float32)
    if batch.beginning:
        rests = [each[batch.beginning :] for each in states]
        np.concatenate([states[0][: batch.beginning], *rests], out=out[0])
    else:
        for row, each in enumerate(states):
            out[row, : len(each)] = each
    return out


def taken_apart(batch: Batch, states: States) -> list[States]:
    """What `arranged` was given: each example's part of the states of a batch."""
    if not batch.beginning:
        rows = zip(states, batch.examples, strict=True)
        return [row[: example.tokens - 1] for row, example in rows]
    first, *rests = np.split(states[0], _ends(batch)[:-1])
    return [np.concatenate([first, rest]) for rest in rests]


@contextmanager
def positions_of(batch: Batch) -> Generator[None]:
    """While the block runs, the network finds each example of a packed batch in its place.

    In it NotPackableError is raised where it cannot be told.
    """
    if not batch.beginning:
        yield
        return
    rope, attention = mx.fast.rope, mx.fast.scaled_dot_product_attention
    places = [np.arange(batch.beginning)]
    places += [np.arange(batch.beginning, each.tokens - 1) for each in batch.examples]
    mx.fast.rope = partial(_rope, rope, mx.array(np.concatenate(places)))
    mx.fast.scaled_dot_product_attention = partial(_attention, attention, _ends(batch))
    try:
        yield
    finally:
        mx.fast.rope, mx.fast.scaled_dot_product_attention = rope, attention


def _ends(batch: Batch) -> list[int]:
    """Where the beginning and what is left of each example end in the row."""
    rests = [example.tokens - 1 - batch.beginning for example in batch.examples]
    return np.cumsum([batch.beginning, *rests]).tolist()


def _rope(rope: Any, places: mx.array, x: mx.array, *settings: Any, **named: Any) -> mx.array:
    """Rotary positions of a row, (1, heads, length, width), at those places."""
    if x.shape[0] != 1 or x.shape[2] != places.size or named.pop("offset", 0) != 0:
        raise NotPackableError
    # Each token is a text of one, and begins at its place.
    turned = rope(x.transpose(2, 1, 0, 3), *settings, offset=places, **named)
    return turned.transpose(2, 1, 0, 3)


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
    """Causal attention in which each example sees the beginning and itself."""
    if not isinstance(mask, str) or not queries.shape[2] == keys.shape[2] == ends[-1]:
        raise NotPackableError
    asked, known, given = (mx.split(each, ends[:-1], axis=2) for each in (queries, keys, values))
    out = [attention(asked[0], known[0], given[0], mask="causal", **named)]
    for place in range(1, len(ends)):
        seen, told = (mx.concatenate([each[0], each[place]], axis=2) for each in (known, given))
        out.append(attention(asked[place], seen, told, mask="causal", **named))
    return mx.concatenate(out, axis=2)
