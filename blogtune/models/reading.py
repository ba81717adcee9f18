"""Several texts read at once, with the logits only of what stands behind the question."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from blogtune.models.head import open_head
from blogtune.models.prefix import common_prefix, plain_caches, read, repeated
from blogtune.runtime.device import padded

# At once; of each token behind a question a logit for every word of the vocabulary is in memory.
TOKENS = 1024


def read_answers(
    network: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]]
) -> Iterator[tuple[int, mx.array]]:
    """Yield (place, what the network expects behind the prompt and behind each answer token).

    That is float32 logits of shape (answer tokens + 1, vocabulary). Texts of like length are read
    together, so the places come in another order; what all begin with is read once.
    """
    shared, caches = _shared_prefix(network, prompts)
    head = open_head(network)
    texts = [[*p[len(shared) :], *a] for p, a in zip(prompts, answers, strict=True)]
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    while order:
        count = fitting((len(texts[place]) for place in order), TOKENS)
        group, order = order[:count], order[count:]
        inputs = np.zeros((count, padded(len(texts[group[-1]]))), np.int32)
        rows: list[np.typing.NDArray[np.int32]] = []
        for row, place in enumerate(group):
            text, expected = texts[place], len(answers[place]) + 1
            inputs[row, : len(text)] = text
            end = row * inputs.shape[1] + len(text)
            rows.append(np.arange(end - expected, end, dtype=np.int32))
        cache = [repeated(layer, count) for layer in caches] or None
        logits = head.project(head.hidden(inputs, np.concatenate(rows), cache))
        ends = np.cumsum([len(each) for each in rows]).tolist()
        yield from zip(group, mx.split(logits, ends[:-1]), strict=True)


def fitting(lengths: Iterable[int], tokens: int) -> int:
    """How many of the first texts, padded to the longest of them, have so many tokens; one always.

    0 of none.
    """
    longest = count = 0
    for length in lengths:
        longest = max(longest, length)
        if count and longest * (count + 1) > tokens:
            break
        count += 1
    return count


def _shared_prefix(network: Any, prompts: Sequence[list[int]]) -> tuple[list[int], list[Any]]:
    """What all prompts begin with, and the network's caches behind it; neither, or both."""
    shared, caches = common_prefix(prompts), plain_caches(network)
    if not shared or not caches:
        return [], []
    return shared, read(network, shared, caches)
