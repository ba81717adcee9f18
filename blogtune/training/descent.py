"""Loss and gradients block by block: every adapted block has a trace of its own.

Numpy's exponentials ask for values while MLX traces, and each time MLX walks through the whole
trace before it computes (measured: 50 microseconds for each block of SmolLM2-135M that lies
behind). In one trace over all blocks that is a twentieth of a step, and what a gradient was
computed from stays to the end. So each block is differentiated by itself: inside its trace the
blocks above it start from a copy of what left it, and find the gradient there.

A network fits that hands one array from block to block and nothing besides; `plan` tries it first.
With gradient checkpointing (Chen et al. 2016, arXiv 1604.06174) a block is traced only when the
gradient behind it is known, and so computed a second time.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from blogtune.cpu.gradients import known_number
from blogtune.models.head import RowHead
from blogtune.training.blocks import entering, list_of_blocks, mlp_at, starting
from blogtune.training.examples import Batch
from blogtune.training.lean import copied, lean
from blogtune.training.loss import PieceLoss, answer_loss
from blogtune.training.packing import States, arranged, pack, positions_of, taken_apart
from blogtune.training.recompute import drawn, random_numbers

Arrays = dict[str, mx.array]


@dataclass
class Found:
    """What a block and those above it gave: `at_input` is the gradient at what entered it."""

    loss: mx.array
    at_input: mx.array | None
    gradients: Arrays


class Descent:
    """The top `adapted` blocks of a network, differentiated from the output down.

    `of_piece` is as `answer_loss` takes it.
    """

    def __init__(
        self, network: Any, head: RowHead, adapted: int, of_piece: PieceLoss, *, recompute: bool
    ) -> None:
        self.network = network
        self.head = head
        self.blocks = list_of_blocks(network)
        paths = {id(module): path for path, module in network.named_modules()}
        self.names = [paths[id(block)] for block in self.blocks]
        self.lowest = len(network.layers) - adapted
        self.of_piece = of_piece
        self.recompute = recompute

    def loss_and_gradients(
        self, batch: Batch, tokens: int, states: mx.array | None
    ) -> tuple[mx.array, Arrays]:
        """As `answer_loss`, and the gradients of what is trained, by name.

        `states` are what enters the lowest adapted block, (examples, length, width); None: unknown.
        """
        with lean(), positions_of(batch):
            if states is None:
                states = copied(self._entering(self.lowest, batch))
            found = self._from(self.lowest, states, batch, tokens)
        return found.loss, found.gradients

    def difference_in_one_row(self, batch: Batch, beginning: int) -> float:
        """How far what leaves blocks is apart if the batch is packed: the largest, relative.

        Of the adapted blocks below the last, or else of the one below it. They are given what
        enters the network's first.
        """
        packed = pack(batch, beginning)
        states = taken_apart(batch, np.asarray(self._entering(0, batch).astype(mx.float32)))
        differences = [0.0]
        for place in range(min(self.lowest, len(self.blocks) - 2), len(self.blocks) - 1):
            rows, row = (self._leaving(place, each, states) for each in (batch, packed))
            largest = max(float(np.abs(each).max()) for each in rows)
            pairs = zip(rows, row, strict=True)
            differences += [float(np.abs(one - other).max()) / largest for one, other in pairs]
        return float(np.max(differences))

    def _leaving(self, place: int, batch: Batch, states: list[States]) -> list[States]:
        """What leaves the block in this place, of each example, if it is given these states."""
        given = mx.array(arranged(batch, states))
        with positions_of(batch), starting(self.blocks, place, given):
            left = self._entering(place + 1, batch)
        return taken_apart(batch, np.asarray(left.astype(mx.float32)))

    def _from(self, place: int, x: mx.array, batch: Batch, tokens: int) -> Found:
        """What the block in this place, which `x` enters, and those above it give."""
        block = self.blocks[place]
        last = place == len(self.blocks) - 1
        trained: Arrays = dict(tree_flatten(block.trainable_parameters()))
        seed = drawn() if self.recompute else None
        found: Found | None = None

        def above(y: mx.array) -> Found:
            return self._from(place + 1, copied(y), batch, tokens)

        def leaving(x: mx.array) -> mx.array:
            numbers = nullcontext() if seed is None else random_numbers(seed)
            with starting(self.blocks, place, x), numbers:
                return self._entering(place + 1, batch)

        def traced(arrays: Arrays, x: mx.array) -> mx.array:
            nonlocal found
            block.update(tree_unflatten(list(arrays.items())))
            if last:
                with starting(self.blocks, place, x), mlp_at(block, batch.rows):
                    return answer_loss(self.network, self.head, batch, tokens, self.of_piece)
            y = leaving(x)
            found = found or above(y)
            assert found.at_input is not None
            return known_number(0.0, y, found.at_input)

        if self.recompute and not last:
            found = above(leaving(x))
        try:
            value, (gradients, at_input) = mx.value_and_grad(traced, argnums=(0, 1))(
                dict(trained), x
            )
            # Nobody asks for the gradient at what enters the lowest block.
            asked = place > self.lowest
            mx.eval(value, gradients, at_input if asked else [])
        finally:
            block.update(tree_unflatten(list(trained.items())))
        own = {f"{self.names[place]}.{key}": copied(array) for key, array in gradients.items()}
        return Found(
            loss=found.loss if found else value,
            at_input=copied(at_input) if asked else None,
            gradients={**own, **(found.gradients if found else {})},
        )

    def _entering(self, place: int, batch: Batch) -> mx.array:
        return entering(self.network, self.blocks, place, batch.inputs)
