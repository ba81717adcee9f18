"""What the training will take, measured on a trial batch before the first step."""

import collections
import time
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from blogtune.common.errors import UserError
from blogtune.common.progress import size_text
from blogtune.runtime.device import fast_math, free_memory
from blogtune.training.activation_cache import ActivationCache
from blogtune.training.examples import Batch
from blogtune.training.setup import Setup
from blogtune.training.step import Step


@dataclass(frozen=True)
class Cost:
    """Of a token of a padded batch: seconds to cache it and in a step, bytes beyond the weights."""

    caching: float
    step: float
    bytes: float


def measure(
    step: Step, cache: ActivationCache | None, batch: Batch, group: mx.distributed.Group
) -> Cost:
    """Take the gradients of this process's share of a batch as large as they come."""
    mine = batch.share(0, group.size()) or batch
    caching = 0.0
    if cache:
        start = time.perf_counter()
        with fast_math():
            collections.deque(cache.fill(mine.examples, len(mine.examples), "memory", Path()), 0)
        caching = (time.perf_counter() - start) / mine.inputs.size
    # The first time also turns the weights into what is computed in.
    mx.eval(step.validation_loss(mine))
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    start = time.perf_counter()
    mx.eval(step.loss_and_gradients(mine))
    seconds = time.perf_counter() - start
    needed = mx.get_peak_memory() - before
    return Cost(caching, seconds / mine.inputs.size, needed / mine.inputs.size)


def refuse_too_large(setup: Setup, cost: Cost, cached: int) -> None:
    """Raise UserError where a step does not fit beside the bytes of cached activations."""
    needed = _step_bytes(setup, cost)
    free = max(0, free_memory() - cached)
    if needed > free:
        params = setup.params
        other = ", or set train.gradient_checkpointing: true"
        beside = " beside the cached activations" if cached else ""
        raise UserError(
            f"{params.batch_pairs} takes about {size_text(needed)} of memory a step, of "
            f"{size_text(free)} that are free{beside}",
            where="train.batch_pairs",
            remedy="lower it (and raise train.accumulate_batches), or lower "
            f"train.max_sequence_tokens{'' if params.gradient_checkpointing else other}",
        )


def forecast(setup: Setup, cost: Cost, done: int, cached: int, storage: str) -> str:
    """Time, memory and disk from here on; `cached` bytes of activations go to `storage`."""
    params, processes = setup.params, setup.group.size()
    mean = sum(example.tokens - 1 for example in setup.examples) / len(setup.examples)
    steps = params.iterations - done
    a_step = cost.step * mean * params.batch_pairs * params.accumulate_batches / processes
    seconds, parts = steps * a_step, [f"{steps} steps of about {a_step:.2g} s"]
    if cached:
        tokens = sum(example.tokens - 1 for example in setup.everything)
        caching = cost.caching * tokens / processes
        seconds += caching
        where = f"{size_text(cached)} {'in memory' if storage == 'memory' else 'on disk'}"
        parts.append(f"the blocks below once, in {_minutes(caching)} ({where})")
    memory = size_text(_step_bytes(setup, cost))
    parts.append(f"in all about {_minutes(seconds)}, evaluations not counted, and {memory} a step")
    return "; ".join(parts)


def _step_bytes(setup: Setup, cost: Cost) -> float:
    """What the batch of the longest examples takes beyond the weights, in all processes."""
    longest = sorted((example.tokens - 1 for example in setup.examples), reverse=True)
    return cost.bytes * longest[0] * min(setup.params.batch_pairs, len(longest))


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
