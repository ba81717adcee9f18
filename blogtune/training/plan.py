"""Before the first step: how it will be computed, and what that takes.

What saves work is used where it gives the reference's loss and gradients on trial batches, and said
to be off where it does not. What decides is the same in every process, and in a run that goes on
from a checkpoint: another way has other last bits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from blogtune.common.progress import progress
from blogtune.runtime.device import device, fast_math
from blogtune.training.activation_cache import ActivationCache, shared_prefix
from blogtune.training.examples import make_batch
from blogtune.training.fast.packing import may_be_packed
from blogtune.training.fast.step import FastStep
from blogtune.training.forecast import forecast, measure, refuse_too_large
from blogtune.training.recompute import Recomputed
from blogtune.training.setup import Setup
from blogtune.training.step import ReferenceStep, Step
from blogtune.training.storage import Choice, choose_storage, stored_bytes
from blogtune.training.trial import Trial


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
    storage = choose_storage(setup, folder)
    chosen = _first_that_is_right(setup, storage)
    storage = storage if chosen.cache else "off"
    batch = make_batch(setup.shortest_and_longest())
    cost = measure(chosen.step, chosen.cache, batch, setup.group)
    mx.clear_cache()
    stored = 0 if storage == "off" else stored_bytes(setup)
    refuse_too_large(setup, cost, stored if storage == "memory" else 0)
    setup.say(forecast(setup, cost, done, stored, storage))
    if chosen.cache and storage != "off":
        everything, quiet = setup.everything, setup.group.rank() > 0
        bar = progress(desc="cache", unit="pairs", total=len(everything), quiet=quiet)
        with bar, fast_math():
            for count in chosen.cache.fill(everything, setup.params.batch_pairs, storage, folder):
                bar.update(count)
        chosen.cache.release_weights()
        mx.clear_cache()
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


def _first_that_is_right(setup: Setup, storage: Choice) -> Candidate:
    caches: list[ActivationCache | None] = [None]
    if storage != "off":
        caches.insert(0, ActivationCache(setup.network, setup.adapted.start, setup.group))
    *candidates, reference = (each for cache in caches for each in _candidates(setup, cache))
    trial = Trial(setup)
    for each in candidates:
        error = trial.error(each.step, each.cache)
        if error <= trial.tolerance:
            return each
        setup.say(f"{each.name}: off, it differs by {error:.1e} on a trial batch")
    return reference
