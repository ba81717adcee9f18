"""Sets of word shingles, whose Jaccard similarity tells how much two texts resemble each other.

Broder 1997, "On the resemblance and containment of documents". `shingles` gives the exact set of
one text. `Sketcher` gives, for many texts at once, the few shingles of each that any text
resembling it enough must share (prefix, length and positional filter: Bayardo, Ma and Srikant
2007, "Scaling up all pairs similarity search"; Xiao et al. 2008, "Efficient similarity joins for
near duplicate detection"). Unlike banded MinHash these filters miss nothing, and rows made from
one template, whose shared shingles are the frequent ones, do not all become candidates.
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blogtune.common.texts import folded, words

COUNTER_BITS = 22

Shingles = frozenset[tuple[str, ...]]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_ROUNDING = 1e-9  # the filters err on the side of more candidates


def shingles(text: str, words: int) -> Shingles:
    """Return the distinct runs of `words` casefolded words; a shorter text is one shingle."""
    found = _words(text, words)
    return frozenset(zip(*(found[start:] for start in range(words)), strict=False))


def jaccard(one: Shingles, other: Shingles) -> float:
    """Return the shared part of all shingles of both, in [0, 1]; neither set may be empty."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


class Sketch(NamedTuple):
    """The shingles to look up, all arrays of shape (entries,), the texts in order.

    A text with `size` distinct shingles can resemble another enough by way of this entry only if
    the other has from `low` to `high` shingles.
    """

    text: NDArray[np.int64]
    key: NDArray[np.uint64]
    size: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]


class Sketcher:
    """Picks each text's rarest shingles, after `count` has seen which ones are frequent.

    A similarity of at least `limit` leaves no room for a text's rarest shingles to be all missing
    from the other, provided that both are sorted in one order. Any order will do, so the counters
    may share slots, and Python's own randomly keyed hash may stand for a word: the results do not
    depend on either.
    """

    def __init__(self, words: int, limit: float) -> None:
        self.words = words
        self.limit = limit
        self._counts = np.zeros(1 << COUNTER_BITS, np.uint32)

    def count(self, texts: Sequence[str]) -> None:
        """Take note of the texts' shingles as frequent ones."""
        np.add.at(self._counts, _slot(self._hashed(texts)[1]), 1)

    def sketch(self, texts: Sequence[str]) -> Sketch:
        """Return the entries of every text, numbered by its position in `texts`."""
        text, hashes = self._hashed(texts)
        order = np.lexsort((hashes, self._counts[_slot(hashes)], text))
        text, hashes = _distinct(text[order], hashes[order])
        sizes = np.bincount(text, minlength=len(texts))
        size = sizes[text]
        # How many of its text's shingles, in this order, come from here on: as many can be shared.
        rest = np.cumsum(sizes)[text] - np.arange(len(text))
        low = np.ceil(self.limit * size - _ROUNDING).astype(np.int64)
        high = np.floor(rest * (1 + self.limit) / self.limit - size + _ROUNDING).astype(np.int64)
        kept = high >= low
        return Sketch(text[kept], hashes[kept] >> np.uint64(32), size[kept], low[kept], high[kept])

    def _hashed(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Every shingle's text and hash, shape (shingles,) each, repetitions included."""
        words = [_words(text, self.words) for text in texts]
        lengths = np.array([len(found) for found in words])
        total = int(lengths.sum())
        hashes = np.fromiter(map(hash, chain.from_iterable(words)), np.int64, total)
        text = np.repeat(np.arange(len(texts)), lengths)
        return _combine(text, hashes.view(np.uint64), self.words)


def _words(text: str, at_least: int) -> list[str]:
    """The casefolded words; too few of them become one word, filled up with empty ones."""
    found = words(text)
    if len(found) >= at_least:
        return found
    return [" ".join(found) or folded(text)] + [""] * (at_least - 1)


def _combine(
    text: NDArray[np.int64], hashes: NDArray[np.uint64], words: int
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Hash each run of `words` words that lies within one text."""
    count = len(hashes) - words + 1
    combined = np.zeros(count, np.uint64)
    for start in range(words):
        combined = (combined ^ hashes[start : start + count]) * _MULTIPLIER
    inside = text[:count] == text[words - 1 :]
    return text[:count][inside], combined[inside]


def _distinct(
    text: NDArray[np.int64], hashes: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Drop repetitions, which stand side by side."""
    new = np.ones(len(text), np.bool_)
    new[1:] = (text[1:] != text[:-1]) | (hashes[1:] != hashes[:-1])
    return text[new], hashes[new]


def _slot(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return hashes >> np.uint64(64 - COUNTER_BITS)
