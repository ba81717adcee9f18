"""A training step as the textbook has it, on every device.

forward, cross-entropy on the answer's tokens, backward, clip, optimizer: `train_step` is the whole
of it. `ReferenceStep` computes loss and gradients the plain way and is the oracle of the tests;
`training/fast` does so sooner on a CPU, and is proven against it before it is used.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from blogtune.models.blocks import StandIn, exchanged, list_of_blocks, starting
from blogtune.models.head import Head
from blogtune.runtime.collectives import all_sum
from blogtune.training.activation_cache import ActivationCache
from blogtune.training.examples import Batch
from blogtune.training.loss import chunked_cross_entropy

# The adapter's arrays by name, as mlx-lm stores them.
Arrays = dict[str, mx.array]


class Step(Protocol):
    """How loss and gradients of a batch come about."""

    def loss_and_gradients(self, batch: Batch) -> tuple[mx.array, Arrays]:
        """Cross-entropy summed over the answer tokens, in nats, and its gradients by name."""
        ...

    def validation_loss(self, batch: Batch) -> mx.array:
        """The same loss without gradients; nothing is dropped."""
        ...


class ReferenceStep:
    """The network's own way through all blocks, or through those above the cached activations."""

    def __init__(
        self,
        network: Any,
        head: Head,
        cache: ActivationCache | None = None,
        around: Mapping[int, type[StandIn]] | None = None,
    ) -> None:
        """`around` some blocks stands another while they are differentiated, as `Recomputed`."""
        self.network = network
        self.head = head
        self.cache = cache
        self.blocks = list_of_blocks(network)
        self.around = around or {}

    def loss_and_gradients(self, batch: Batch) -> tuple[mx.array, Arrays]:
        def loss(_: Any) -> mx.array:
            # In here: the network that MLX lists the parameters of has its own blocks.
            stand_ins = {place: kind(self.blocks[place]) for place, kind in self.around.items()}
            with exchanged(self.blocks, stand_ins):
                return self.loss(batch)

        value, gradients = nn.value_and_grad(self.network, loss)(self.network)
        return value, dict(tree_flatten(gradients))

    def validation_loss(self, batch: Batch) -> mx.array:
        return self.loss(batch)

    def loss(self, batch: Batch) -> mx.array:
        """Forward, and cross-entropy at the rows that predict an answer token."""
        with self._start(batch):
            hidden = self.head.hidden(batch.inputs, batch.rows)
        return chunked_cross_entropy(hidden, batch.targets, self.head.project)

    def _start(self, batch: Batch) -> AbstractContextManager[None]:
        if self.cache is None:
            return nullcontext()
        return starting(self.blocks, self.cache.depth, self.cache.states(batch))


def train_step(
    step: Step,
    network: Any,
    optimizer: optimizers.Optimizer,
    batches: Sequence[Batch],
    clip_norm: float | None,
    group: mx.distributed.Group,
) -> float:
    """Take one optimizer step on all the batches together; return its loss in nats a token.

    Each process of `group` computes its share of every batch, and all take the same step.
    """
    network.train()
    tokens = sum(len(batch.targets) for batch in batches)
    loss, gradients = mx.array(0.0), tree_map(mx.zeros_like, weights(network))
    for batch in batches:
        mine = batch.share(group.rank(), group.size())
        if mine is not None:
            value, found = step.loss_and_gradients(mine)
            loss, gradients = loss + value, tree_map(mx.add, gradients, found)
            mx.eval(loss, gradients)
    loss, gradients = all_sum((loss, gradients), group)
    gradients = {name: array / tokens for name, array in gradients.items()}
    if clip_norm is not None:
        gradients, _ = optimizers.clip_grad_norm(gradients, clip_norm)
    optimizer.update(network, tree_unflatten(list(gradients.items())))
    mx.eval(network.trainable_parameters(), optimizer.state)
    return float(loss) / tokens


def evaluate(
    step: Step, network: Any, batches: Sequence[Batch], group: mx.distributed.Group
) -> float:
    """Mean loss in nats a token over the answer tokens of all batches."""
    network.eval()
    shares = (batch.share(group.rank(), group.size()) for batch in batches)
    loss = sum(float(step.validation_loss(mine)) for mine in shares if mine is not None)
    # float32, as MLX sums: good to 1e-7 of the loss.
    total = float(all_sum(mx.array(loss), group))
    return total / sum(len(batch.targets) for batch in batches)


def weights(network: Any) -> Arrays:
    """What is trained, by name."""
    return dict(tree_flatten(network.trainable_parameters()))
