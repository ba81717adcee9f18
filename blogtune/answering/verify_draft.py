"""How far does a network's own answer go along with a draft? One pass over both tells.

To write the answer takes a pass for each token. This is the step that verifies in speculative
decoding (Leviathan et al. 2023, arXiv 2211.17192), with the whole answer of a model that should say
the same as draft. What comes out is the network's own greedy answer, whatever the draft says; a bad
draft only saves nothing.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from blogtune.answering.writing import Writing
from blogtune.models.reading import read_answers


def verify_drafts(
    network: Any,
    answers: Sequence[Writing],
    drafts: Sequence[list[int]],
    stops: Container[int],
    written: Callable[[int], None],
) -> None:
    """Write what each answer has in common with its draft, and the token behind that."""
    # With that token they are as long as an answer may be.
    within = [draft[: each.left - 1] for each, draft in zip(answers, drafts, strict=True)]
    texts = [answer.text for answer in answers]
    for place, tokens, stopped in accepted(network, texts, within, stops):
        written(answers[place].add(tokens, stopped=stopped))


def accepted(
    network: Any, prompts: Sequence[list[int]], drafts: Sequence[list[int]], stops: Container[int]
) -> Iterator[tuple[int, list[int], bool]]:
    """Yield (place, tokens with which the network's own answer begins, whether it ends there).

    The beginning is what both have in common and the token with which the network goes on, which is
    left out where it is one of `stops`.
    """
    for place, logits in read_answers(network, prompts, drafts):
        tokens: list[int] = []
        ends = False
        # Behind a whole draft anything parts from it.
        for token, drafted in zip(_most_likely(logits), [*drafts[place], None], strict=True):
            ends = token in stops
            if not ends:
                tokens.append(token)
            if ends or token != drafted:
                break
        yield place, tokens, ends


def _most_likely(logits: mx.array) -> list[int]:
    return [int(token) for token in np.asarray(mx.argmax(logits, axis=-1))]
