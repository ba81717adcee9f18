"""The trunk: the frozen blocks below the lowest adapted one, computed once for each example.

Training changes only the top blocks, so what enters the lowest of them never changes. `Trunk`
computes that once for each example and then lets the network's own code run on top of it: the
trunk's blocks are exchanged for stand-ins, and no block is written a second time. Positions are
causal, so padding at an example's end changes nothing before it.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import psutil

from blogtune.training.examples import Batch, Example, batches_by_length

MEMORY_SHARE = 0.4


class _StandIn:
    """Takes a block's place: returns what it was given, or the array it holds."""

    def __init__(self, block: Any) -> None:
        self.block = block
        self.held: mx.array | None = None
        self.seen: mx.array | None = None

    def __call__(self, x: mx.array, *_: Any, **__: Any) -> mx.array:
        self.seen = x
        return x if self.held is None else self.held

    def __getattr__(self, name: str) -> Any:
        return getattr(self.block, name)


class Trunk:
    """Hidden states that enter the lowest adapted block, by example id."""

    def __init__(self, network: Any, adapted: int, group: mx.distributed.Group) -> None:
        self.network = network
        self.group = group
        self.blocks = _list_of_blocks(network)
        self.depth = len(network.layers) - adapted
        self.states: dict[str, npt.NDArray[np.float32]] = {}
        # Of the network's own states: others would change what the blocks above compute in.
        self.dtype = mx.float32

    def compute(self, examples: Sequence[Example], size: int) -> Iterator[int]:
        """Compute and keep the states of `examples`; yield how many each round added.

        In a round each process computes one batch, and all of them get all.
        """
        batches = list(batches_by_length(examples, size))
        rank, processes = self.group.rank(), self.group.size()
        for start in range(0, len(batches), processes):
            several = batches[start : start + processes]
            computed = self._states(several[min(rank, len(several) - 1)])
            self.dtype = computed.dtype
            for batch, states in zip(several, self._exchange(computed, several), strict=False):
                for example, state in zip(batch.examples, states, strict=False):
                    self.states[example.id] = state[: example.tokens - 1].copy()
            yield sum(len(batch.examples) for batch in several)

    def _exchange(self, computed: mx.array, batches: Sequence[Batch]) -> npt.NDArray[np.float32]:
        """All processes' states, (processes x examples x length x width), padded at the ends."""
        mine = computed.astype(mx.float32)
        shapes = [batch.inputs.shape for batch in batches]
        rows, length = (max(sizes) for sizes in zip(*shapes, strict=True))
        padding = [(0, rows - mine.shape[0]), (0, length - mine.shape[1]), (0, 0)]
        padded = mx.pad(mine, padding)[None]
        return np.asarray(mx.distributed.all_gather(padded, group=self.group, stream=mx.cpu))

    @contextmanager
    def standing_in(self, batch: Batch) -> Generator[None]:
        """While the block runs, the network starts from this batch's stored states."""
        with self._exchanged(range(self.depth)) as stand_ins:
            stand_ins[0].held = self._stored(batch)
            yield

    def _stored(self, batch: Batch) -> mx.array:
        rows, length = batch.inputs.shape
        width = self.states[batch.examples[0].id].shape[-1]
        padded = np.zeros((rows, length, width), np.float32)
        for row, example in enumerate(batch.examples):
            padded[row, : example.tokens - 1] = self.states[example.id]
        return mx.array(padded).astype(self.dtype)

    def _states(self, batch: Batch) -> mx.array:
        # Nothing behind the stand-in is evaluated: MLX computes only what is asked for.
        with self._exchanged(range(self.depth, self.depth + 1)) as (entry,):
            self.network(mx.array(batch.inputs))
            if entry.seen is None:
                raise RuntimeError("the network did not call its blocks in order")
            return entry.seen

    @contextmanager
    def _exchanged(self, places: range) -> Generator[list[_StandIn]]:
        blocks = self.blocks[places.start : places.stop]
        stand_ins = [_StandIn(block) for block in blocks]
        self.blocks[places.start : places.stop] = stand_ins
        try:
            yield stand_ins
        finally:
            self.blocks[places.start : places.stop] = blocks


def pays(network: Any, adapted: int, distinct: Sequence[Example], passes: int) -> bool:
    """Whether a trunk saves time and fits: more passes than examples, and memory for the states."""
    depth = len(network.layers) - adapted
    width = _width(network)
    needed = sum(example.tokens for example in distinct) * width * 4
    fits = needed < MEMORY_SHARE * psutil.virtual_memory().available
    return depth > 0 and passes > len(distinct) and fits


def _list_of_blocks(network: Any) -> list[Any]:
    """The list that the network itself walks: `network.layers` is a copy of it in some."""
    first = network.layers[0]
    lists = (value for module in network.modules() for value in module.values())
    return next(v for v in lists if isinstance(v, list) and v and v[0] is first)


def _width(network: Any) -> int:
    """The width of the hidden states, which is what an adapter on the attention reads."""
    modules = network.layers[-1].modules()
    return next(module.lora_a.shape[0] for module in modules if "lora_a" in module)
