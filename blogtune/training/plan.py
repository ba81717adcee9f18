"""Before the first step: which shortcut is exact and pays, and what the training will take."""

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import psutil
from mlx.utils import tree_flatten

from blogtune.errors import UserError
from blogtune.progress import progress, say, size_text
from blogtune.runtime.device import on_cpu
from blogtune.runtime.processes import from_first
from blogtune.training.engine import Engine
from blogtune.training.examples import Batch, Example, make_batch
from blogtune.training.packing import NotPackableError
from blogtune.training.params import TrainParams
from blogtune.training.trunk import Trunk, shared_beginning, trunk_bytes

# Relative. Both ways compute the same numbers; padding may change the order of a sum.
TOLERANCE = 1e-4
# Of what is free, at most this much is taken for the trunk.
MEMORY_SHARE, DISK_SHARE = 0.4, 0.8
OFF = "off"


@dataclass(frozen=True)
class Trial:
    """What one small batch took: seconds a token of it each way, and bytes beyond the weights."""

    trunk: float
    with_trunk: float
    without: float
    bytes_a_token: float
    difference: float


def use_what_pays(
    engine: Engine, examples: list[Example], validation: list[Example], folder: Path, done: int
) -> None:
    """Compute the trunk if it fits, pays over the whole run and proves exact; say what comes.

    `folder` is where it lies if on disk, `done` the iterations already behind. Raises UserError for
    a setting that this machine has not the memory or disk for.
    """
    params = engine.params
    everything = [*examples, *validation]
    place = _place(engine, everything, _passes(params, len(validation)), folder)
    beginning = shared_beginning(engine.network, everything)
    if beginning and engine.packs and place != OFF:
        _pack_if_the_same(engine, everything, len(beginning))
    trial = _try(engine, everything, beginning, place)
    if trial.difference > TOLERANCE and beginning and place != OFF:
        told = f"it differs by {trial.difference:.1e} on a trial batch"
        _say(engine, f"what all pairs begin with: computed for each, {told}")
        beginning = []
        trial = _try(engine, everything, beginning, place)
    if trial.difference > TOLERANCE:
        _go_without(engine, trial, place)
        place = OFF
    _refuse_too_large(engine, examples, trial)
    _say(engine, _forecast(engine, examples, validation, trial, place, done))
    if place == OFF:
        return
    trunk = Trunk(engine.network, params.lora.layers, engine.group, beginning)
    quiet = engine.group.rank() > 0
    with progress(desc="trunk", unit="pairs", total=len(everything), quiet=quiet) as bar:
        for count in trunk.compute(everything, params.batch_pairs, place, folder):
            bar.update(count)
    trunk.release()
    engine.trunk = trunk


def _passes(params: TrainParams, validation: int) -> int:
    """How many examples all steps and evaluations look at."""
    evaluations = 1 + math.ceil(params.iterations / params.evaluate_every)
    steps = params.iterations * params.accumulate_batches * params.batch_pairs
    return steps + evaluations * validation


def _place(engine: Engine, examples: Sequence[Example], passes: int, folder: Path) -> Any:
    """Where the trunk goes: "memory", "disk" or "off"; the first process decides for all."""
    wanted = engine.params.trunk_cache
    if wanted == OFF or engine.params.lora.layers == len(engine.network.layers):
        return OFF
    needed = trunk_bytes(engine.network, examples) * engine.group.size()
    folder.mkdir(parents=True, exist_ok=True)
    memory, disk = psutil.virtual_memory().available, shutil.disk_usage(folder).free
    fits = {"memory": needed < MEMORY_SHARE * memory, "disk": needed < DISK_SHARE * disk}
    if wanted == "auto":
        # Not by a measured time: the same run must take the same way, or its bytes may differ.
        choices = [place for place in fits if fits[place] and passes > len(examples)]
        return from_first((choices or [OFF])[0].encode(), engine.group).decode()
    if not fits[wanted]:
        free = memory if wanted == "memory" else disk
        raise UserError(
            f"train.trunk_cache: {wanted} takes {size_text(needed)}, of {size_text(free)} that are "
            f"free; set it to {'disk or off' if wanted == 'memory' else 'off'}"
        )
    return wanted


def _try(engine: Engine, examples: Sequence[Example], beginning: list[int], place: str) -> Trial:
    """The shortest and the longest example, as training will compute them and in one trace."""
    ordered = sorted(examples, key=lambda example: example.tokens)
    batch = make_batch([ordered[0], *ordered[max(1, len(ordered) - 1) :]])
    tokens = batch.inputs.size
    engine.network.eval()
    # The first time also turns the weights into what is computed in.
    engine.validate(batch.examples)
    own_way, engine.one_trace = engine.one_trace, True
    whole, without, whole_bytes = _timed(engine, batch)
    engine.one_trace = own_way
    if place == OFF and own_way:
        return Trial(0.0, without / tokens, without / tokens, whole_bytes / tokens, 0.0)
    computed = 0.0
    if place != OFF:
        engine.trunk = Trunk(engine.network, engine.params.lora.layers, engine.group, beginning)
        start = time.perf_counter()
        for _ in engine.trunk.compute(batch.examples, len(batch.examples), "memory", Path()):
            pass
        # Of one batch every process computes the whole; later each has its own.
        computed = (time.perf_counter() - start) / engine.group.size()
    fast, seconds, needed = _timed(engine, batch)
    engine.trunk = None
    difference = _difference(fast, whole)
    if difference > TOLERANCE:
        seconds, needed = without, whole_bytes
    elif place == OFF:
        without = seconds
    return Trial(computed / tokens, seconds / tokens, without / tokens, needed / tokens, difference)


def _pack_if_the_same(engine: Engine, examples: Sequence[Example], beginning: int) -> None:
    """Whether a row as long as they come is right: positions may be looked at by its length."""
    size = math.ceil(engine.params.batch_pairs / engine.group.size())
    longest = sorted(examples, key=lambda example: -example.tokens)[:size]
    engine.network.eval()
    try:
        apart = engine.descent.difference_in_one_row(make_batch(longest), beginning)
    except NotPackableError:
        apart = math.inf
    engine.packs = apart <= TOLERANCE


def _go_without(engine: Engine, trial: Trial, place: str) -> None:
    """Trace the whole network as one from here on, because the trial proved the other way wrong."""
    what = "trunk" if place != OFF else "gradients block by block"
    _say(engine, f"{what}: off, it differs by {trial.difference:.1e} on a trial batch")
    engine.one_trace = True
    if engine.params.gradient_checkpointing and on_cpu():
        _say(engine, "gradient_checkpointing: off, it needs a network of one block after another")


def _timed(engine: Engine, batch: Batch) -> tuple[Any, float, int]:
    """Loss and gradients, the seconds they took, and the bytes beyond what was there before."""
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    start = time.perf_counter()
    computed = engine.gradients(batch, len(batch.targets))
    return computed, time.perf_counter() - start, mx.get_peak_memory() - before


def _difference(fast: tuple[float, Any], slow: tuple[float, Any]) -> float:
    """The largest relative difference in loss and gradients."""
    differences = [abs(fast[0] - slow[0]) / abs(slow[0])]
    expected: dict[str, mx.array] = dict(tree_flatten(slow[1]))
    found: dict[str, mx.array] = dict(tree_flatten(fast[1]))
    if found.keys() != expected.keys():
        return math.inf
    largest = max(float(mx.abs(array).max()) for array in expected.values())
    for name, array in found.items():
        differences.append(float(mx.abs(array - expected[name]).max()) / largest)
    return max(differences)


def _refuse_too_large(engine: Engine, examples: Sequence[Example], trial: Trial) -> None:
    needed, free = _step_bytes(engine, examples, trial), psutil.virtual_memory().available
    if needed > free:
        other = ", or set train.gradient_checkpointing: true"
        raise UserError(
            f"train.batch_pairs: {engine.params.batch_pairs} takes about {size_text(needed)} of "
            f"memory a step, of {size_text(free)} that are free; lower it (and raise "
            "train.accumulate_batches), or lower train.max_sequence_tokens"
            f"{'' if engine.params.gradient_checkpointing else other}"
        )


def _step_bytes(engine: Engine, examples: Sequence[Example], trial: Trial) -> float:
    """What the batch of the longest examples takes beyond the weights, in all processes."""
    longest = sorted((example.tokens - 1 for example in examples), reverse=True)
    return trial.bytes_a_token * longest[0] * min(engine.params.batch_pairs, len(longest))


def _forecast(
    engine: Engine,
    examples: list[Example],
    validation: list[Example],
    trial: Trial,
    place: str,
    done: int,
) -> str:
    """Time, memory and disk from here on, from the trial's speed."""
    params = engine.params
    tokens = sum(example.tokens - 1 for example in examples) / len(examples)
    steps = params.iterations - done
    step = trial.with_trunk if place != OFF else trial.without
    step *= tokens * params.batch_pairs * params.accumulate_batches
    states = trunk_bytes(engine.network, [*examples, *validation]) if place != OFF else 0
    lines = [f"{steps} steps of about {step:.2g} s"]
    seconds = steps * step
    if place != OFF:
        trunk = trial.trunk * sum(example.tokens - 1 for example in [*examples, *validation])
        seconds += trunk
        epochs = params.iterations * params.accumulate_batches * params.batch_pairs / len(examples)
        even = trial.trunk / max(trial.without - trial.with_trunk, 1e-12)
        lines.append(
            f"the blocks below once, in {_minutes(trunk)} ({size_text(states)} "
            f"{'in memory' if place == 'memory' else 'on disk'}; pays from {even:.1f} epochs on, "
            f"this run has {epochs:.1f})"
        )
    memory = size_text(_step_bytes(engine, examples, trial))
    lines.append(f"in all about {_minutes(seconds)}, evaluations not counted, and {memory} a step")
    return "; ".join(lines)


def _say(engine: Engine, text: str) -> None:
    if engine.group.rank() == 0:
        say(text)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
