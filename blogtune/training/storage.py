"""Where cached activations lie, and what they take."""

import math
import shutil
from pathlib import Path
from typing import Literal, cast

from blogtune.common.errors import UserError
from blogtune.common.progress import size_text
from blogtune.runtime.collectives import broadcast
from blogtune.runtime.device import free_memory
from blogtune.training.activation_cache import Storage, cache_bytes
from blogtune.training.params import TrainParams
from blogtune.training.setup import Setup

# Of what is free, at most this much is taken for cached activations.
MEMORY_SHARE, DISK_SHARE = 0.4, 0.8

Choice = Storage | Literal["off"]


def choose_storage(setup: Setup, folder: Path) -> Choice:
    """Where activations are cached; the first process decides for all."""
    params, wanted = setup.params, setup.params.activation_cache
    needed = 0 if wanted == "off" else stored_bytes(setup)
    if not needed:
        return "off"
    folder.mkdir(parents=True, exist_ok=True)
    memory, disk = free_memory(), shutil.disk_usage(folder).free
    fits = {"memory": needed < MEMORY_SHARE * memory, "disk": needed < DISK_SHARE * disk}
    if wanted == "auto":
        # Not by a measured time: the same run must take the same way, or its bytes may differ.
        pays = passes(params, len(setup.validation)) > len(setup.everything)
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


def passes(params: TrainParams, validation: int) -> int:
    """How many examples all steps and evaluations look at."""
    evaluations = 1 + math.ceil(params.iterations / params.evaluate_every)
    steps = params.iterations * params.accumulate_batches * params.batch_pairs
    return steps + evaluations * validation


def stored_bytes(setup: Setup) -> int:
    """What cached activations take: every process holds them all. 0 where there are none."""
    depth = setup.adapted.start
    if depth == 0:
        return 0
    return cache_bytes(setup.network, depth, setup.everything) * setup.group.size()
