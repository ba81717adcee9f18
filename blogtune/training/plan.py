"""Before the first step: how it will be computed, and what that takes.

What saves work is used where it gives the reference's loss and gradients on trial batches, and said
to be off where it does not. What decides is the same in every process, and in a run that goes on
from a checkpoint: another way has other last bits.
"""

import collections
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import mlx.core as mx
import numpy as np
import psutil

from blogtune.common.errors import UserError
from blogtune.common.progress import progress, size_text
from blogtune.runtime.collectives import broadcast
from blogtune.runtime.device import device, exact_losses, fast_math
from blogtune.training.activation_cache import ActivationCache, cache_bytes, shared_prefix
from blogtune.training.examples import Example, make_batch
from blogtune.training.fast.packing import NotPackableError, may_be_packed
from blogtune.training.fast.step import FastStep
from blogtune.training.forecast import forecast, measure, refuse_too_large
from blogtune.training.params import TrainParams
from blogtune.training.recompute import Recomputed
from blogtune.training.setup import Setup
from blogtune.training.step import Arrays, ReferenceStep, Step

# Relative, of gradients. Two ways compute the same numbers, and a GPU rounds by their shapes.
TOLERANCE = {mx.float32: 1e-4, mx.float16: 5e-3, mx.bfloat16: 3e-2}
# A loss is a mean over many numbers: what is wrong shows less in it.
LOSS_WEIGHT = 10
# Of what is free, at most this much is taken for cached activations.
MEMORY_SHARE, DISK_SHARE = 0.4, 0.8
# Of an answer in the batch on which gradients are compared: the reference keeps much of each token,
# and nobody has asked yet what there is room for.
TRIAL_ANSWER_TOKENS = 16

Storage = Literal["memory", "disk", "off"]


@dataclass(frozen=True)
class Candidate:
    """A way to compute the step, and what is special about it.

    Without `cache` it goes through all blocks; if it `pads`, batches are filled up to one length.
    """

    name: str
    step: Step
    cache: ActivationCache | None
    pads: bool = True


def choose_step(setup: Setup, folder: Path, done: int) -> Candidate:
    """The fastest way that proves right and fits, its activations cached in memory or in `folder`.

    `done` iterations are behind. Raises UserError for a setting that this machine has not the
    memory or disk for.
    """
    storage = _storage(setup, folder)
    chosen = _first_that_is_right(setup, storage)
    storage = storage if chosen.cache else "off"
    batch = make_batch(setup.shortest_and_longest())
    trial = measure(chosen.step, chosen.cache, batch, setup.group)
    stored = 0 if storage == "off" else _cache_bytes(setup)
    refuse_too_large(setup, trial, stored if storage == "memory" else 0)
    setup.say(forecast(setup, trial, done, stored, storage))
    if chosen.cache and storage != "off":
        everything, quiet = setup.everything, setup.group.rank() > 0
        bar = progress(desc="cache", unit="pairs", total=len(everything), quiet=quiet)
        with bar, fast_math():
            for count in chosen.cache.fill(everything, setup.params.batch_pairs, storage, folder):
                bar.update(count)
        chosen.cache.release_weights()
    return chosen


def _candidates(setup: Setup, cache: ActivationCache | None) -> Iterator[Candidate]:
    """All ways that there are here, the fastest first; the last one is the reference itself."""
    network, head, params = setup.network, setup.head, setup.params
    recompute, told = params.gradient_checkpointing, " with cached activations" if cache else ""
    prefix = len(shared_prefix(network, setup.everything))
    # With dropout every example drops other things of what all begin with.
    packs = prefix and not params.lora.dropout and may_be_packed(network, setup.longest(), prefix)
    if device().is_cpu:
        for shared in (prefix, 0) if packs else (0,):
            adapted = setup.adapted
            step = FastStep(network, head, cache, adapted, prefix=shared, recompute=recompute)
            name = "packed batches" if shared else "the CPU's step"
            yield Candidate(f"{name}{told}", step, cache, pads=not shared)
    around = dict.fromkeys(setup.adapted, Recomputed) if recompute else {}
    yield Candidate(f"the step{told}", ReferenceStep(network, head, cache, around), cache)


def _first_that_is_right(setup: Setup, storage: Storage) -> Candidate:
    caches: list[ActivationCache | None] = [None]
    if storage != "off":
        caches.insert(0, ActivationCache(setup.network, setup.adapted.start, setup.group))
    *candidates, reference = (each for cache in caches for each in _candidates(setup, cache))
    trial = _Trial(setup)
    for each in candidates:
        error = trial.error(each)
        if error <= trial.tolerance:
            return each
        setup.say(f"{each.name}: off, it differs by {error:.1e} on a trial batch")
    return reference


class _Trial:
    """What the reference gives: gradients on a few pairs made short, the loss alone on the longest.

    Positions may be looked at by a text's length, so the longest are among them.
    """

    def __init__(self, setup: Setup) -> None:
        self.group = setup.group
        setup.network.eval()
        few = [
            Example(f"{each.id} cut", each.prompt, each.answer[:TRIAL_ANSWER_TOKENS])
            for each in setup.short_and_middle()
        ]
        self.short, self.long = make_batch(few), make_batch(setup.longest())
        reference = ReferenceStep(setup.network, setup.head)
        hidden = setup.head.hidden(self.short.inputs, self.short.rows[:1])
        self.tolerance = TOLERANCE[hidden.dtype]
        with exact_losses():
            self.expected = reference.loss_and_gradients(self.short)
            mx.eval(self.expected)
        with exact_losses(), fast_math():
            self.loss = float(reference.validation_loss(self.long))

    def error(self, candidate: Candidate) -> float:
        """The largest relative difference, infinite where it fails; the first process's."""
        data = repr(self._own_error(candidate)).encode()
        return float(broadcast(data, self.group))

    def _own_error(self, candidate: Candidate) -> float:
        step, examples = candidate.step, [*self.short.examples, *self.long.examples]
        try:
            if candidate.cache:
                with fast_math():
                    collections.deque(candidate.cache.fill(examples, 1, "memory", Path()), 0)
            found = step.loss_and_gradients(self.short)
            losses = [(step.validation_loss(self.short), float(self.expected[0]))]
            losses += [(step.validation_loss(self.long), self.loss)]
        except NotPackableError:
            return math.inf
        errors = [abs(float(loss) - expected) / abs(expected) for loss, expected in losses]
        error = max_relative_error(found, self.expected)
        return float(np.max([LOSS_WEIGHT * np.max(errors), error]))


def max_relative_error(found: tuple[mx.array, Arrays], expected: tuple[mx.array, Arrays]) -> float:
    """Of loss and gradients, the latter relative to the largest of them; NaN for a NaN."""
    (loss, gradients), (own_loss, own_gradients) = found, expected
    if gradients.keys() != own_gradients.keys():
        return math.inf
    largest = max(float(mx.abs(array).max()) for array in own_gradients.values())
    errors = [float(mx.abs(gradients[n] - own).max()) / largest for n, own in own_gradients.items()]
    return float(np.max([abs(float(loss - own_loss)) / abs(float(own_loss)), *errors]))


def _storage(setup: Setup, folder: Path) -> Storage:
    """Where activations are cached; the first process decides for all."""
    params, wanted = setup.params, setup.params.activation_cache
    needed = 0 if wanted == "off" else _cache_bytes(setup)
    if not needed:
        return "off"
    folder.mkdir(parents=True, exist_ok=True)
    memory, disk = psutil.virtual_memory().available, shutil.disk_usage(folder).free
    fits = {"memory": needed < MEMORY_SHARE * memory, "disk": needed < DISK_SHARE * disk}
    if wanted == "auto":
        # Not by a measured time: the same run must take the same way, or its bytes may differ.
        pays = _passes(params, len(setup.validation)) > len(setup.everything)
        choices = [storage for storage in fits if fits[storage] and pays]
        chosen = broadcast((choices or ["off"])[0].encode(), setup.group).decode()
        return cast("Storage", chosen)
    if not fits[wanted]:
        free = memory if wanted == "memory" else disk
        raise UserError(
            f"{wanted} takes {size_text(needed)}, of {size_text(free)} that are free",
            where="train.activation_cache",
            remedy=f"set it to {'disk or off' if wanted == 'memory' else 'off'}",
        )
    return wanted


def _passes(params: TrainParams, validation: int) -> int:
    """How many examples all steps and evaluations look at."""
    evaluations = 1 + math.ceil(params.iterations / params.evaluate_every)
    steps = params.iterations * params.accumulate_batches * params.batch_pairs
    return steps + evaluations * validation


def _cache_bytes(setup: Setup) -> int:
    """What cached activations take: every process holds them all. 0 where there are none."""
    depth = setup.adapted.start
    if depth == 0:
        return 0
    return cache_bytes(setup.network, depth, setup.everything) * setup.group.size()
