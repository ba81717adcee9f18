"""Before the first step: which shortcut is exact and pays, and what the training will take."""

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import psutil
from mlx.utils import tree_flatten

from blogtune.common.errors import UserError
from blogtune.common.progress import progress, say, size_text
from blogtune.runtime.device import on_cpu
from blogtune.runtime.processes import from_first
from blogtune.training.blocks import NotAStackError
from blogtune.training.engine import Engine
from blogtune.training.examples import Batch, Example, make_batch, share
from blogtune.training.packing import NotPackableError, pack
from blogtune.training.params import TrainParams
from blogtune.training.trunk import Trunk, shared_beginning, trunk_bytes

# Relative. Both ways compute the same numbers; padding may change the order of a sum.
TOLERANCE = 1e-4
# Of what is free, at most this much is taken for the trunk.
MEMORY_SHARE, DISK_SHARE = 0.4, 0.8
# Of an answer, in what both ways are tried on.
TRIED_TOKENS = 32
OFF = "off"


@dataclass(frozen=True)
class Trial:
    """What a small batch took: seconds a token of it each way, and bytes beyond the weights.

    `shared` tokens are computed once for all examples that a process has in a batch.
    """

    trunk: float
    with_trunk: float
    without: float
    bytes_a_token: float
    shared: int = 0


def use_what_pays(
    engine: Engine, examples: list[Example], validation: list[Example], folder: Path, done: int
) -> None:
    """Compute the trunk if it fits, pays over the whole run and proves exact; say what comes.

    `folder` is where it lies if on disk, `done` the iterations already behind. Raises UserError for
    a setting that this machine has not the memory or disk for.
    """
    params = engine.params
    everything = [*examples, *validation]
    storage = _storage(engine, everything, _passes(params, len(validation)), folder)
    beginning = shared_beginning(engine.network, everything) if storage != OFF else []
    if engine.packs:
        engine.packs = bool(beginning) and _packs(engine, everything, len(beginning))
    apart = _apart(engine, everything, beginning, storage)
    if beginning and not apart <= TOLERANCE:
        told = f"it differs by {apart:.1e} on a trial batch"
        _say(engine, f"what all pairs begin with: computed for each, {told}")
        beginning = []
        apart = _apart(engine, everything, beginning, storage)
    if not apart <= TOLERANCE:
        _go_without(engine, apart, storage)
        storage = OFF
    trial = _try(engine, everything, beginning, storage)
    states = _states_bytes(engine, everything) if storage == "memory" else 0
    _refuse_too_large(engine, examples, trial, states)
    _say(engine, _forecast(engine, examples, validation, trial, storage, done))
    if storage == OFF:
        return
    trunk = Trunk(engine.network, params.lora.layers, engine.group, beginning)
    quiet = engine.group.rank() > 0
    with progress(desc="trunk", unit="pairs", total=len(everything), quiet=quiet) as bar:
        for count in trunk.compute(everything, params.batch_pairs, storage, folder):
            bar.update(count)
    trunk.release()
    engine.trunk = trunk


def _passes(params: TrainParams, validation: int) -> int:
    """How many examples all steps and evaluations look at."""
    evaluations = 1 + math.ceil(params.iterations / params.evaluate_every)
    steps = params.iterations * params.accumulate_batches * params.batch_pairs
    return steps + evaluations * validation


def _storage(engine: Engine, examples: Sequence[Example], passes: int, folder: Path) -> Any:
    """Where the trunk goes: "memory", "disk" or "off"; the first process decides for all."""
    wanted = engine.params.trunk_cache
    if wanted == OFF or engine.params.lora.layers == len(engine.network.layers):
        return OFF
    try:
        needed = _states_bytes(engine, examples)
    except NotAStackError:
        return OFF
    folder.mkdir(parents=True, exist_ok=True)
    memory, disk = psutil.virtual_memory().available, shutil.disk_usage(folder).free
    fits = {"memory": needed < MEMORY_SHARE * memory, "disk": needed < DISK_SHARE * disk}
    if wanted == "auto":
        # Not by a measured time: the same run must take the same way, or its bytes may differ.
        choices = [storage for storage in fits if fits[storage] and passes > len(examples)]
        return from_first((choices or [OFF])[0].encode(), engine.group).decode()
    if not fits[wanted]:
        free = memory if wanted == "memory" else disk
        raise UserError(
            f"train.trunk_cache: {wanted} takes {size_text(needed)}, of {size_text(free)} that are "
            f"free; set it to {'disk or off' if wanted == 'memory' else 'off'}"
        )
    return wanted


def _states_bytes(engine: Engine, examples: Sequence[Example]) -> int:
    """What the trunk's states take: every process holds them all."""
    return trunk_bytes(engine.network, examples) * engine.group.size()


def _packs(engine: Engine, examples: Sequence[Example], beginning: int) -> bool:
    """Whether a row as long as they come is right: positions may be looked at by its length."""
    size = math.ceil(engine.params.batch_pairs / engine.group.size())
    longest = make_batch(sorted(examples, key=lambda example: -example.tokens)[:size])
    # LongRoPE has two sets of frequencies, and two rows on one side of the change agree.
    changes = [
        getattr(module, "original_max_position_embeddings", math.inf)
        for module in engine.network.modules()
    ]
    if pack(longest, beginning).inputs.size > min(changes):
        return False
    engine.network.eval()
    try:
        return engine.descent.difference_in_one_row(longest, beginning) <= TOLERANCE
    except NotPackableError:
        return False


def _apart(
    engine: Engine, examples: Sequence[Example], beginning: list[int], storage: str
) -> float:
    """How far training's way is from one trace without a trunk, on a few short examples."""
    if storage == OFF and engine.one_trace:
        return 0.0
    # Short, because one trace over all keeps much, and nobody has asked yet what there is room for.
    short = [
        Example(each.id, each.prompt, each.answer[:TRIED_TOKENS])
        for each in _shortest_and_longest(engine, examples)
    ]
    batch = make_batch(short)
    engine.network.eval()
    own_way, engine.one_trace = engine.one_trace, True
    loss, gradients = engine.gradients(batch, len(batch.targets))
    engine.one_trace = own_way
    try:
        engine.trunk = _trial_trunk(engine, short, beginning) if storage != OFF else None
        found = engine.gradients(batch, len(batch.targets))
        found_again = engine.validate(short)
    except (NotAStackError, NotPackableError):
        return math.inf
    finally:
        engine.trunk = None
    return max(_difference(found, (loss, gradients)), abs(found_again - loss) / abs(loss))


def _try(engine: Engine, examples: Sequence[Example], beginning: list[int], storage: str) -> Trial:
    """Training's way, and that without a trunk, on a batch that has one of the longest examples."""
    batch = make_batch(_shortest_and_longest(engine, examples))
    size = engine.group.size()
    mine = share(batch, 0, size) or batch
    tokens = mine.inputs.size
    engine.network.eval()
    # The first time also turns the weights into what is computed in.
    engine.validate(batch.examples[:1])
    without, needed = _timed(engine, batch)
    without /= tokens * size
    if storage == OFF:
        return Trial(0.0, without, without, needed / tokens)
    start = time.perf_counter()
    engine.trunk = _trial_trunk(engine, batch.examples, beginning)
    # Of one batch every process computes the whole; later each has its own.
    computed = (time.perf_counter() - start) / (batch.inputs.size * size)
    seconds, needed = _timed(engine, batch)
    mine = engine.packed(mine, training=True)
    engine.trunk = None
    tokens = mine.inputs.size
    return Trial(computed, seconds / (tokens * size), without, needed / tokens, mine.beginning)


def _shortest_and_longest(engine: Engine, examples: Sequence[Example]) -> list[Example]:
    """One of each for every process."""
    ordered, each = sorted(examples, key=lambda example: example.tokens), engine.group.size()
    return [*ordered[:each], *ordered[max(each, len(ordered) - each) :]]


def _trial_trunk(engine: Engine, examples: Sequence[Example], beginning: list[int]) -> Trunk:
    trunk = Trunk(engine.network, engine.params.lora.layers, engine.group, beginning)
    for _ in trunk.compute(examples, len(examples), "memory", Path()):
        pass
    return trunk


def _go_without(engine: Engine, apart: float, storage: str) -> None:
    """Trace the whole network as one from here on, because the other way proved to be wrong."""
    what = "trunk" if storage != OFF else "gradients block by block"
    _say(engine, f"{what}: off, it differs by {apart:.1e} on a trial batch")
    engine.one_trace = True
    if engine.params.gradient_checkpointing and on_cpu():
        _say(engine, "gradient_checkpointing: off, it needs a network of one block after another")


def _timed(engine: Engine, batch: Batch) -> tuple[float, int]:
    """The seconds that the gradients took, and the bytes beyond what was there before."""
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    start = time.perf_counter()
    engine.gradients(batch, len(batch.targets))
    return time.perf_counter() - start, mx.get_peak_memory() - before


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
    return float(np.max(differences))


def _refuse_too_large(
    engine: Engine, examples: Sequence[Example], trial: Trial, states: int
) -> None:
    """Raise UserError where a step does not fit beside the bytes of the trunk's states."""
    needed = _step_bytes(engine, examples, trial)
    free = max(0, psutil.virtual_memory().available - states)
    if needed > free:
        other = ", or set train.gradient_checkpointing: true"
        beside = " beside the trunk" if states else ""
        raise UserError(
            f"train.batch_pairs: {engine.params.batch_pairs} takes about {size_text(needed)} of "
            f"memory a step, of {size_text(free)} that are free{beside}; lower it (and raise "
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
    storage: str,
    done: int,
) -> str:
    """Time, memory and disk from here on, from the trial's speed."""
    params = engine.params
    tokens = sum(example.tokens - 1 for example in examples) / len(examples)
    steps = params.iterations - done
    step = trial.with_trunk if storage != OFF else trial.without
    shared = trial.shared * max(0, params.batch_pairs - engine.group.size())
    step *= (tokens * params.batch_pairs - shared) * params.accumulate_batches
    lines = [f"{steps} steps of about {step:.2g} s"]
    seconds = steps * step
    if storage != OFF:
        trunk = trial.trunk * sum(example.tokens - 1 for example in [*examples, *validation])
        seconds += trunk
        states = size_text(_states_bytes(engine, [*examples, *validation]))
        where = f"{states} {'in memory' if storage == 'memory' else 'on disk'}"
        pays = "no faster in the trial"
        if trial.with_trunk < trial.without:
            even = trial.trunk / (trial.without - trial.with_trunk)
            pairs = params.iterations * params.accumulate_batches * params.batch_pairs
            epochs = pairs / len(examples)
            pays = f"pays from {even:.1f} epochs on, this run has {epochs:.1f}"
        lines.append(f"the blocks below once, in {_minutes(trunk)} ({where}; {pays})")
    memory = size_text(_step_bytes(engine, examples, trial))
    lines.append(f"in all about {_minutes(seconds)}, evaluations not counted, and {memory} a step")
    return "; ".join(lines)


def _say(engine: Engine, text: str) -> None:
    if engine.group.rank() == 0:
        say(text)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
