"""One network under training: how a step, a validation and their shortcuts are computed."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from blogtune.models.head import put_row_head
from blogtune.runtime.device import on_cpu
from blogtune.runtime.processes import total
from blogtune.training.blocks import exchanged, mlp_at
from blogtune.training.descent import Descent
from blogtune.training.examples import Batch, Example, batches_by_length, share
from blogtune.training.lean import lean
from blogtune.training.lora import apply_lora, target_keys
from blogtune.training.loss import (
    HostLoss,
    answer_loss,
    answer_loss_value,
    plain_loss,
    plain_weights,
)
from blogtune.training.packing import pack, positions_of
from blogtune.training.params import TrainParams
from blogtune.training.recompute import Recomputed
from blogtune.training.trunk import Trunk

Arrays = dict[str, mx.array]


class Engine:
    """A network with adapters, its optimizer, and the trunk it may start from.

    The processes of `group` hold the same weights, and each computes a share of every batch.
    """

    def __init__(self, network: Any, params: TrainParams, group: mx.distributed.Group) -> None:
        self.network = network
        self.params = params
        self.group = group
        self.keys = target_keys(network, params.lora.targets)
        self.trainable = apply_lora(network, params.lora)
        self.head = put_row_head(network)
        self.of_piece = HostLoss(plain_weights(network, self.head)) if on_cpu() else plain_loss
        self.descent = Descent(
            network,
            self.head,
            params.lora.layers,
            self.of_piece,
            recompute=params.gradient_checkpointing,
        )
        # As MLX would have it; where it computes while it traces, each block has its own.
        self.one_trace = not on_cpu()
        # Whether batches may go in one row where nothing is dropped.
        self.packs = on_cpu()
        self.optimizer = _optimizer(params)
        self.trunk: Trunk | None = None

    def step(self, batches: Sequence[Batch], iteration: int, rate: float) -> float:
        """Take the optimizer step of that iteration; return the mean loss in nats a token.

        Its gradient is that of all the batches together. What is random in it follows from seed,
        iteration and process alone.
        """
        self.network.train()
        seed = np.random.SeedSequence([self.params.seed, iteration, self.group.rank()])
        mx.random.seed(int(seed.generate_state(1, np.uint64)[0]))
        self.optimizer.learning_rate = mx.array(rate)
        tokens = sum(len(batch.targets) for batch in batches)
        loss, gradients = self.gradients(batches[0], tokens)
        for batch in batches[1:]:
            more, others = self.gradients(batch, tokens)
            loss, gradients = loss + more, tree_map(mx.add, gradients, others)
        if self.params.clip_norm is not None:
            gradients, _ = optimizers.clip_grad_norm(gradients, self.params.clip_norm)
        self.optimizer.update(self.network, gradients)
        mx.eval(self.network.trainable_parameters(), self.optimizer.state)
        return loss

    def validate(self, examples: Sequence[Example]) -> float:
        """Mean loss in nats a token over all answer tokens of `examples`."""
        self.network.eval()
        last = self.descent.blocks[-1]
        loss = 0.0
        for batch in batches_by_length(examples, self.params.batch_pairs):
            mine = share(batch, self.group.rank(), self.group.size())
            if mine is not None:
                mine = self.packed(mine, training=False)
                # Shortcuts of networks that were found to be a plain stack.
                few = nullcontext() if self.one_trace else mlp_at(last, mine.rows)
                with self._start(mine), positions_of(mine), few:
                    loss += answer_loss_value(self.network, self.head, mine, self.of_piece)
        # float32, as MLX sums: good to 1e-7 of the loss.
        everywhere = float(total(mx.array(loss), self.group))
        return everywhere / sum(len(example.answer) for example in examples)

    def gradients(self, batch: Batch, tokens: int) -> tuple[float, Any]:
        """The batch's loss over `tokens` and its gradients, summed over all processes' shares."""
        mine = share(batch, self.group.rank(), self.group.size())
        if mine is None:
            nothing = {name: mx.zeros_like(array) for name, array in self.weights().items()}
            return _values(total((mx.array(0.0), nothing), self.group))
        if self.one_trace:
            computed = self._in_one_trace(mine, tokens)
        else:
            mine = self.packed(mine, training=True)
            states = self.trunk.states_of(mine) if self.trunk else None
            computed = self.descent.loss_and_gradients(mine, tokens, states)
        return _values(total(computed, self.group))

    def _in_one_trace(self, batch: Batch, tokens: int) -> tuple[mx.array, Arrays]:
        blocks, lowest = self.descent.blocks, self.descent.lowest
        recomputed = self.params.gradient_checkpointing and not on_cpu()
        places = range(lowest, len(blocks) if recomputed else lowest)

        def loss(network: Any) -> mx.array:
            # In here: outside, MLX lists the parameters, and stand-ins have none.
            with self._start(batch), exchanged(blocks, places, Recomputed):
                return answer_loss(network, self.head, batch, tokens, self.of_piece)

        with lean() if on_cpu() else nullcontext():
            value, gradients = nn.value_and_grad(self.network, loss)(self.network)
        return value, dict(tree_flatten(gradients))

    def shared(self, *, training: bool) -> int:
        """How many tokens, with which all examples begin, are computed once for a batch."""
        drops = training and self.params.lora.dropout > 0
        return len(self.trunk.beginning) if self.trunk and self.packs and not drops else 0

    def packed(self, batch: Batch, *, training: bool) -> Batch:
        """In one row, where something is shared."""
        shared = self.shared(training=training)
        return pack(batch, shared) if shared else batch

    def weights(self) -> Arrays:
        """The adapter's arrays by name, as mlx-lm stores them."""
        return dict(tree_flatten(self.network.trainable_parameters()))

    def optimizer_state(self) -> Arrays:
        """The optimizer's arrays by name, its count of steps among them."""
        return dict(tree_flatten(self.optimizer.state))

    def restore(self, weights: Arrays, optimizer_state: Arrays) -> None:
        """Go back to what `weights` and `optimizer_state` once returned."""
        self.network.load_weights(list(weights.items()), strict=False)
        self.optimizer.state = tree_unflatten(list(optimizer_state.items()))

    def _start(self, batch: Batch) -> Any:
        return self.trunk.standing_in(batch) if self.trunk else nullcontext()


def _optimizer(params: TrainParams) -> optimizers.Optimizer:
    if params.optimizer == "adam":
        return optimizers.Adam(learning_rate=params.learning_rate)
    return optimizers.AdamW(learning_rate=params.learning_rate, weight_decay=params.weight_decay)


def _values(computed: tuple[mx.array, Arrays]) -> tuple[float, Any]:
    loss, gradients = computed
    mx.eval(gradients)
    return float(loss), tree_unflatten(list(gradients.items()))
