"""The trunk: the frozen blocks below the lowest adapted one, computed once for each example.

Training changes only the top blocks, so what enters the lowest of them never changes. `Trunk`
computes that once for each example and then lets the network's own code run on top of it, the
trunk's blocks being exchanged for stand-ins. Positions are causal, so padding at an example's end
changes nothing before it, and what all examples begin with is computed once for all.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from mlx_lm.models.cache import KVCache

from blogtune.models.prefix import common_beginning, plain_caches, repeated
from blogtune.training.blocks import entering, list_of_blocks, starting
from blogtune.training.examples import Batch, Example, batches_by_length
from blogtune.training.packing import States, arranged

Storage = Literal["memory", "disk"]


class Trunk:
    """Hidden states that enter the lowest adapted block, in one array or file, by example id.

    `beginning` are tokens that every example begins with: those of `shared_beginning`, or none.
    """

    def __init__(
        self,
        network: Any,
        adapted: int,
        group: mx.distributed.Group,
        beginning: Sequence[int] = (),
    ) -> None:
        self.network = network
        self.group = group
        self.beginning = list(beginning)
        self.blocks = list_of_blocks(network)
        self.depth = len(network.layers) - adapted
        self.states: States = np.zeros((0, 0), np.float32)
        self.starts: dict[str, int] = {}
        # Of the network's own states: others would change what the blocks above compute in.
        self.dtype = mx.float32

    def compute(
        self, examples: Sequence[Example], size: int, storage: Storage, folder: Path
    ) -> Iterator[int]:
        """Compute and keep the states of `examples`; yield how many each round added.

        In a round each process computes one batch, and all of them get all. On disk they lie in an
        unnamed file in `folder`, gone with the process.
        """
        ends = np.cumsum([example.tokens - 1 for example in examples])
        self.starts = dict(
            zip((each.id for each in examples), [0, *ends[:-1].tolist()], strict=True)
        )
        batches = list(batches_by_length(examples, size))
        shared = len(self.beginning)
        front, first = self._beginning_read()
        rank, processes = self.group.rank(), self.group.size()
        for start in range(0, len(batches), processes):
            several = batches[start : start + processes]
            mine = several[min(rank, len(several) - 1)]
            caches = [repeated(cache, len(mine.examples)) for cache in front]
            computed = self._reached(mine.inputs[:, shared:], caches or None)
            if start == 0:
                self.dtype = computed.dtype
                self.states = _room((int(ends[-1]), computed.shape[-1]), storage, folder)
            for batch, states in zip(several, self._exchange(computed, several), strict=False):
                for example, state in zip(batch.examples, states, strict=False):
                    self._of(example)[:shared] = first
                    self._of(example)[shared:] = state[: example.tokens - 1 - shared]
            yield sum(len(batch.examples) for batch in several)

    def release(self) -> None:
        """Give the trunk's weights back: from here on the states stand for them."""
        for block in self.blocks[: self.depth]:
            block.update(tree_map(_nothing, block.parameters()))

    def _of(self, example: Example) -> States:
        start = self.starts[example.id]
        return self.states[start : start + example.tokens - 1]

    def _exchange(self, computed: mx.array, batches: Sequence[Batch]) -> States:
        """All processes' states, (processes x examples x length x width), padded at the ends."""
        mine = computed.astype(mx.float32)
        shapes = [batch.inputs.shape for batch in batches]
        rows, length = (max(sizes) for sizes in zip(*shapes, strict=True))
        length -= len(self.beginning)
        padding = [(0, rows - mine.shape[0]), (0, length - mine.shape[1]), (0, 0)]
        padded = mx.pad(mine, padding)[None]
        return np.asarray(mx.distributed.all_gather(padded, group=self.group, stream=mx.cpu))

    def states_of(self, batch: Batch) -> mx.array:
        """What enters the lowest adapted block, like the inputs, (examples, length, width)."""
        states = arranged(batch, [self._of(example) for example in batch.examples])
        return mx.array(states).astype(self.dtype)

    def standing_in(self, batch: Batch) -> AbstractContextManager[None]:
        """While the block runs, the network starts from this batch's stored states."""
        return starting(self.blocks, self.depth, self.states_of(batch))

    def _beginning_read(self) -> tuple[list[KVCache], States]:
        """Caches behind the beginning, above the trunk empty, and its states, (tokens, width)."""
        if not self.beginning:
            return [], np.zeros((0, 1), np.float32)
        caches = plain_caches(self.network)
        states = self._reached([self.beginning], caches)[0]
        return caches, np.asarray(states.astype(mx.float32))

    def _reached(self, inputs: Any, caches: list[KVCache] | None) -> mx.array:
        """What enters the lowest adapted block, (rows, length, width).

        `caches`, one a block, hold what stands in front of the inputs.
        """
        return entering(self.network, self.blocks, self.depth, inputs, caches)


def shared_beginning(network: Any, examples: Sequence[Example]) -> list[int]:
    """What all the prompts begin with, as a trunk may read it once for all.

    Nothing where the network keeps something else than all keys and values.
    """
    plain = plain_caches(network)
    return common_beginning([example.prompt for example in examples]) if plain else []


def trunk_bytes(network: Any, examples: Sequence[Example]) -> int:
    """What the states of these examples take in one process, in memory or on disk."""
    return sum(example.tokens - 1 for example in examples) * _width(network) * 4


def _room(shape: tuple[int, int], storage: Storage, folder: Path) -> States:
    if storage == "memory":
        return np.empty(shape, np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


def _nothing(_: mx.array) -> mx.array:
    return mx.array([])


def _width(network: Any) -> int:
    """The width of the hidden states, which is what the embedding gives for a token."""
    return entering(network, list_of_blocks(network), 0, [[0]]).shape[-1]
