"""Cached frozen activations: what the blocks below the lowest adapted one give, computed once.

Training changes only the top blocks, so what enters the lowest of them never changes. Positions are
causal, so padding at an example's end changes nothing before it, and what all examples begin with
is computed once for all.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from mlx_lm.models.cache import KVCache

from blogtune.models.blocks import entering, list_of_blocks
from blogtune.models.prefix import common_prefix, plain_caches, repeated
from blogtune.training.examples import Batch, Example, States, batches_by_length

Storage = Literal["memory", "disk"]


class ActivationCache:
    """Hidden states that enter the block `depth`, in one array or file, by example id."""

    def __init__(self, network: Any, depth: int, group: mx.distributed.Group) -> None:
        self.network = network
        self.depth = depth
        self.group = group
        self.blocks = list_of_blocks(network)
        self.all: States = np.zeros((0, 0), np.float32)
        self.starts: dict[str, int] = {}
        # Of the network's own states: others would change what the blocks above compute in.
        self.dtype = mx.float32

    def states(self, batch: Batch) -> mx.array:
        """What enters the block, like the batch's inputs, (examples, length, width)."""
        states = batch.arranged([self._of(example) for example in batch.examples])
        return mx.array(states).astype(self.dtype)

    def fill(
        self, examples: Sequence[Example], size: int, storage: Storage, folder: Path
    ) -> Iterator[int]:
        """Compute and keep the states of `examples`; yield how many each round added.

        In a round each process computes one batch, and all of them get all. On disk they lie in an
        unnamed file in `folder`, gone with the process.
        """
        ends = np.cumsum([example.tokens - 1 for example in examples])
        starts = [0, *ends[:-1].tolist()]
        self.starts = dict(zip((each.id for each in examples), starts, strict=True))
        batches = list(batches_by_length(examples, size))
        prefix = shared_prefix(self.network, examples)
        shared = len(prefix)
        caches, first = self._read_prefix(prefix)
        rank, processes = self.group.rank(), self.group.size()
        for start in range(0, len(batches), processes):
            several = batches[start : start + processes]
            mine = several[min(rank, len(several) - 1)]
            behind = [repeated(cache, len(mine.examples)) for cache in caches]
            computed = self._entering(mine.inputs[:, shared:], behind or None)
            if start == 0:
                self.dtype = computed.dtype
                self.all = _room((int(ends[-1]), computed.shape[-1]), storage, folder)
            everyones = self._exchanged(computed, several, shared)
            for batch, states in zip(several, everyones, strict=False):
                for example, state in zip(batch.examples, states, strict=False):
                    self._of(example)[:shared] = first
                    self._of(example)[shared:] = state[: example.tokens - 1 - shared]
            yield sum(len(batch.examples) for batch in several)

    def release_weights(self) -> None:
        """Give the weights below back: from here on the states stand for them."""
        for block in self.blocks[: self.depth]:
            block.update(tree_map(_nothing, block.parameters()))

    def _of(self, example: Example) -> States:
        start = self.starts[example.id]
        return self.all[start : start + example.tokens - 1]

    def _read_prefix(self, prefix: Sequence[int]) -> tuple[list[KVCache], States]:
        """Caches behind the prefix, empty from the block on, and its states, (tokens, width)."""
        if not prefix:
            return [], np.zeros((0, 1), np.float32)
        caches = plain_caches(self.network)
        states = self._entering([prefix], caches)[0]
        return caches, np.asarray(states.astype(mx.float32))

    def _entering(self, inputs: Any, caches: list[KVCache] | None) -> mx.array:
        """What enters the block, (rows, length, width); `caches` hold what stands in front."""
        states = entering(self.network, self.blocks, self.depth, inputs, caches)
        assert states is not None
        return states

    def _exchanged(self, computed: mx.array, batches: Sequence[Batch], shared: int) -> States:
        """All processes' states, (processes x examples x length x width), padded at the ends."""
        mine = computed.astype(mx.float32)
        shapes = [batch.inputs.shape for batch in batches]
        rows, length = (max(sizes) for sizes in zip(*shapes, strict=True))
        padding = [(0, rows - mine.shape[0]), (0, length - shared - mine.shape[1]), (0, 0)]
        padded = mx.pad(mine, padding)[None]
        return np.asarray(mx.distributed.all_gather(padded, group=self.group, stream=mx.cpu))


def shared_prefix(network: Any, examples: Sequence[Example]) -> list[int]:
    """What all the prompts begin with.

    Nothing where the network keeps something else than all keys and values.
    """
    plain = plain_caches(network)
    return common_prefix([example.prompt for example in examples]) if plain else []


def cache_bytes(network: Any, depth: int, examples: Sequence[Example]) -> int:
    """What these examples' states take in one process.

    0 where the network does not call the blocks of one list, one after the other.
    """
    states = entering(network, list_of_blocks(network), depth, [[0]])
    if states is None or states.ndim != 3:
        return 0
    return sum(example.tokens - 1 for example in examples) * states.shape[-1] * 4


def _room(shape: tuple[int, int], storage: Storage, folder: Path) -> States:
    if storage == "memory":
        return np.empty(shape, np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


def _nothing(_: mx.array) -> mx.array:
    return mx.array([])
