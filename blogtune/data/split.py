"""Which pair goes to train, validation or test: seeded, and stable where the data change.

Every pair gets a point in [0, 1) from hashes of the seed, its post and its own text alone, and the
shares cut [0, 1) into three. So neither another post nor the order of the rows moves a pair.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from blogtune.data.params import SplitParams

Keys = NDArray[np.uint64]
Splits = NDArray[np.uint8]

NAMES: tuple[str, ...] = ("train", "validation", "test")
# As `mlx_lm.lora --data` looks for them.
FILES = ("train.jsonl", "valid.jsonl", "test.jsonl")
TRAIN, VALIDATION, TEST = range(3)


def seeded_key(seed: int, *parts: str) -> int:
    """Return 64 bits that depend on the seed and the parts, the same on every machine.

    At a million keys two different texts share one with a probability of 3e-8.
    """
    text = "\x1f".join((str(seed), *parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def assign(posts: Keys, contents: Keys, params: SplitParams) -> Splits:
    """Return each pair's split (0 train, 1 validation, 2 test), shape (pairs,).

    `posts` and `contents` are `seeded_key`s, shape (pairs,) each; inside a post the contents
    differ. By pair it is systematic sampling inside each post (Madow and Madow 1944, "On the
    theory of systematic sampling"): position i of n, in the order of the content keys, gets the
    point (i + u) / n with the post's own offset u, so that each post's counts are within one of
    its exact shares. By post, all pairs of a post get the point u.
    """
    points = _fraction(posts)
    if params.by == "pair":
        position, size = _place_in_post(posts, contents)
        points = (position + points) / size
    cuts = np.array([params.train, params.train + params.validation])
    return np.searchsorted(cuts, points, side="right").astype(np.uint8)


def _place_in_post(posts: Keys, contents: Keys) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """For each pair its position in its post's order of content keys, and the post's size."""
    order = np.lexsort((contents, posts))
    first = np.diff(posts[order], prepend=~posts[order[:1]]) != 0
    starts = np.append(np.flatnonzero(first), len(posts))
    group = np.cumsum(first) - 1
    position = np.empty(len(posts), np.uint32)
    size = np.empty(len(posts), np.uint32)
    position[order] = np.arange(len(posts)) - starts[group]
    size[order] = np.diff(starts)[group]
    return position, size


def _fraction(keys: Keys) -> NDArray[np.float64]:
    """The upper 53 bits as a number in [0, 1); all 64 would round up to 1."""
    return (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53
