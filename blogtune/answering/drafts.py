"""How far does a network's own answer go along with a draft?

One pass over question and draft tells, where writing the answer takes a pass for each token: the
step that checks in speculative decoding (Leviathan et al. 2023, arXiv 2211.17192), here with the
whole answer of a model that should say the same. What comes out is the network's own greedy answer,
whatever the draft says; a bad draft only takes longer.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from blogtune.models.head import put_row_head
from blogtune.models.prefix import common_beginning, plain_caches, repeated

# Tokens read at once; a logit for each of the vocabulary and of a draft's tokens is in memory.
TOKENS = 1024


def follow(
    network: Any, prompts: Sequence[list[int]], drafts: Sequence[list[int]], stops: Container[int]
) -> Iterator[tuple[int, list[int], bool]]:
    """Yield (place, tokens with which the network's own answer begins, whether it ends there).

    The beginning is what both have in common and the token with which the network goes on, which is
    left out where it is one of `stops`.
    """
    shared = common_beginning(prompts)
    beginning = plain_caches(network)
    if beginning and shared:
        network(mx.array([shared]), cache=beginning)
    else:
        shared = []
    head = put_row_head(network)
    rest = [[*p[len(shared) :], *d] for p, d in zip(prompts, drafts, strict=True)]
    for group in _groups([len(tokens) for tokens in rest]):
        inputs = np.zeros((len(group), max(len(rest[place]) for place in group)), np.int32)
        for row, place in enumerate(group):
            inputs[row, : len(rest[place])] = rest[place]
        ends = [row * inputs.shape[1] + len(rest[place]) for row, place in enumerate(group)]
        lengths = [len(drafts[place]) for place in group]
        # What follows the prompt and each token of the draft.
        rows = [np.arange(e - n - 1, e) for e, n in zip(ends, lengths, strict=True)]
        caches = [repeated(layer, len(group)) for layer in beginning] if shared else None
        logits = head.logits(network, inputs, np.concatenate(rows).astype(np.int32), caches)
        chosen = np.asarray(mx.argmax(logits, axis=-1))
        each = np.split(chosen, np.cumsum([n + 1 for n in lengths])[:-1])
        for place, own in zip(group, each, strict=True):
            yield place, *_agreed(own, drafts[place], stops)


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


def _agreed(
    own: "npt.NDArray[np.uint32]", draft: list[int], stops: Container[int]
) -> tuple[list[int], bool]:
    tokens: list[int] = []
    # Behind a whole draft anything parts from it.
    for token, drafted in zip(own.tolist(), [*draft, None], strict=True):
        if token in stops:
            return tokens, True
        tokens.append(token)
        if token != drafted:
            break
    return tokens, False


def _groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of like length that are read at once."""
    order = sorted(range(len(lengths)), key=lambda place: lengths[place])
    while order:
        count = fitting((lengths[place] for place in order), TOKENS)
        yield order[:count]
        del order[:count]
