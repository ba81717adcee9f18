"""How many questions are answered at once: as many as memory holds the caches of."""

from typing import Any

from mlx_lm.models.cache import make_prompt_cache

from blogtune.answering.caches import cache_bytes
from blogtune.answering.params import AnswerParams
from blogtune.common.errors import UserError
from blogtune.common.progress import size_text
from blogtune.models.prefix import read
from blogtune.runtime.device import free_memory

# More at once are not answered sooner: then a step's time grows with them.
MOST = 96
# Of what is free; the rest is for what is computed of a token, and for other programs.
SHARE = 0.8


def questions_at_once(network: Any, params: AnswerParams, longest: int, processes: int) -> int:
    """`answer.batch_questions`, or as many as fit in this process's share of what is free.

    `longest` is the longest prompt in tokens. Raises UserError where not even one fits.
    """
    if params.batch_questions != "auto":
        return params.batch_questions
    free = free_memory() // processes
    step = step_bytes(network)
    for count in range(MOST, 0, -1):
        if cache_bytes(step, count, longest, params.max_tokens) <= SHARE * free:
            return count
    one = size_text(cache_bytes(step, 1, longest, params.max_tokens))
    raise UserError(
        f"one answer of {params.max_tokens} tokens may take {one} of memory, of {size_text(free)} "
        "that are free",
        where="answer.max_tokens",
        remedy="lower it, or close other programs",
    )


def step_bytes(network: Any) -> int:
    """What one text's caches take, up to `caches.GROWTH` tokens."""
    return sum(cache.nbytes for cache in read(network, [0], make_prompt_cache(network)))
