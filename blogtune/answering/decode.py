"""Greedy decoding with mlx-lm's continuous batching, answers beginning in groups."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import make_prompt_cache

from blogtune.answering.caches import READ_TOKENS
from blogtune.answering.writing import Writing
from blogtune.models.prefix import common_prefix, read
from blogtune.models.reading import fitting

# To begin with some answers costs a pass over all weights, however few they are: they wait until
# this part of a batch is free.
REFILLED = 4


def decode(
    network: Any,
    answers: Sequence[Writing],
    stops: Sequence[int],
    size: int,
    written: Callable[[int], None],
) -> None:
    """Write the answers to their ends, token by token, up to `size` of them at once.

    `written` is told how many tokens more there are, what an answer leaves out of its limit being
    done as well.
    """
    greedy = Greedy(network)
    # Read together they are padded to the longest.
    waiting = sorted((each for each in answers if each.left), key=lambda each: len(each.text))
    shared = common_prefix([answer.text for answer in waiting])
    generator = BatchGenerator(
        cast("nn.Module", greedy),
        stop_tokens=[[token] for token in stops],
        sampler=greedy.sample,
        completion_batch_size=size,
        prefill_batch_size=size,
    )
    try:
        # Batches copy from the caches that they are given, so that all can name the same.
        caches = [read(network, shared, make_prompt_cache(network))] if shared else None
        writing: dict[int, Writing] = {}
        while waiting or writing:
            free = size - len(writing)
            if REFILLED * free >= size and waiting:
                texts = [answer.text[len(shared) :] for answer in waiting[:free]]
                count = fitting(map(len, texts), READ_TOKENS)
                group, waiting = waiting[:count], waiting[count:]
                limits = [answer.left for answer in group]
                uids = generator.insert(texts[:count], limits, caches and caches * count)
                writing.update(zip(uids, group, strict=True))
            for response in generator.next_generated():
                stopped = response.finish_reason == "stop"
                tokens = [] if stopped else [response.token]
                written(writing[response.uid].add(tokens, stopped=stopped))
                if response.finish_reason is not None:
                    del writing[response.uid]
    finally:
        generator.close()


class Greedy:
    """A network of which only the most likely next token is asked.

    BatchGenerator computes the probability of every token of the vocabulary at each step, a fifth
    of the time on a CPU. Here it gets one logit, and its sampler what was chosen from all.
    """

    def __init__(self, network: Any) -> None:
        self.network = network
        self.chosen = mx.array([])

    def __call__(self, tokens: mx.array, cache: Any) -> mx.array:
        logits = self.network(tokens, cache=cache)
        self.chosen = mx.argmax(logits[:, -1, :], axis=-1)
        return logits[..., :1]

    def sample(self, _: mx.array) -> mx.array:
        """For BatchGenerator, which calls it directly behind the network."""
        return self.chosen

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)
