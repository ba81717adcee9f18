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

from blogtune.cpu.gradients import with_gradient
from blogtune.training.examples import Batch
from blogtune.training.lean import copied

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
    mx.fast.rope = _Rope(rope, mx.array(np.concatenate(places)))
    mx.fast.scaled_dot_product_attention = partial(_attention, attention, _ends(batch))
    try:
        yield
    finally:
        mx.fast.rope, mx.fast.scaled_dot_product_attention = rope, attention


def _ends(batch: Batch) -> list[int]:
    """Where the beginning and what is left of each example end in the row."""
    rests = [example.tokens - 1 - batch.beginning for example in batch.examples]
    return np.cumsum([batch.beginning, *rests]).tolist()


class _Rope:
    """Rotary positions of a row, (1, heads, length, width), at those places; `rope` is MLX's.

    On a CPU MLX computes sines and cosines anew at every call. Here a batch has them once.
    """

    def __init__(self, rope: Any, places: mx.array) -> None:
        self._rope = rope
        self._places = places
        # With the frequencies, because another array could get the identity of one that is gone.
        self._tables: dict[tuple[Any, ...], tuple[Any, mx.array, mx.array]] = {}

    def __call__(self, x: mx.array, dims: int, *, offset: int = 0, **settings: Any) -> mx.array:
        if x.shape[0] != 1 or x.shape[2] != self._places.size or offset != 0:
            raise NotPackableError
        if settings["traditional"]:
            return self._turned(x, dims, settings)
        _, cosines, sines = self._table(dims, x.dtype, settings)

        def by(sines: mx.array, x: mx.array) -> mx.array:
            one, other, rest = mx.split(x, [dims // 2, dims], axis=-1)
            turned = [one * cosines - other * sines, one * sines + other * cosines, rest]
            return mx.concatenate(turned, axis=-1)

        def forward(x: mx.array) -> mx.array:
            return copied(by(sines, x))

        def back(_: mx.array, cotangent: mx.array, __: mx.array) -> mx.array:
            return by(-sines, cotangent)

        return with_gradient(forward, back)(x)

    def _table(
        self, dims: int, dtype: mx.Dtype, settings: dict[str, Any]
    ) -> tuple[Any, mx.array, mx.array]:
        """Frequencies, cosines and sines, (1, 1, length, dims / 2): what `rope` makes of ones."""
        frequencies = settings.get("freqs")
        key = dims, dtype, settings["base"], settings["scale"], id(frequencies)
        if key not in self._tables:
            one = mx.broadcast_to(mx.arange(dims) < dims // 2, (1, 1, self._places.size, dims))
            turned = mx.stop_gradient(self._turned(one.astype(dtype), dims, settings))
            mx.eval(turned)
            self._tables[key] = frequencies, turned[..., : dims // 2], turned[..., dims // 2 :]
        return self._tables[key]

    def _turned(self, x: mx.array, dims: int, settings: dict[str, Any]) -> mx.array:
        # Each token is a text of one, and begins at its place.
        turned = self._rope(x.transpose(2, 1, 0, 3), dims, offset=self._places, **settings)
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
