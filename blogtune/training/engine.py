"""One network under training: how a step, a validation and their shortcuts are computed."""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
from mlx.utils import tree_flatten, tree_map
from tqdm import tqdm

from blogtune.models.head import RowHead, put_row_head
from blogtune.runtime.device import on_cpu
from blogtune.runtime.processes import total
from blogtune.training.examples import Batch, Example, batches_by_length, share
from blogtune.training.lora import apply_lora, target_keys
from blogtune.training.loss import host_loss, plain_loss, row_logits, total_loss
from blogtune.training.params import TrainParams
from blogtune.training.trunk import Trunk, pays

Loss = Callable[[Any, RowHead, Batch, int], mx.array]
# Relative. Both ways compute the same numbers; padding may change the order of a sum.
TOLERANCE = 1e-4


class Engine:
    """A network with adapters, its optimizer, and the trunk it may start from.

    The processes of `group` hold the same weights, and each computes a share of every batch.
    """

    def __init__(self, network: Any, params: TrainParams, group: mx.distributed.Group) -> None:
        self.network = network
        self.params = params
        self.group = group
        self.keys = target_keys(network)
        self.trainable = apply_lora(network, params.lora)
        self.head = put_row_head(network)
        self.loss: Loss = host_loss if on_cpu() else plain_loss
        self.optimizer = optimizers.Adam(learning_rate=params.learning_rate)
        self.trunk: Trunk | None = None

    def use_trunk(self, examples: Sequence[Example], trial: Batch, passes: int) -> None:
        """Compute the trunk of `examples` if that pays over `passes` uses and proves exact."""
        wanted = pays(self.network, self.params.lora.layers, examples, passes)
        # Free memory may look different to each process, and all must do the same.
        if int(total(mx.array(int(wanted)), self.group)) < self.group.size():
            return
        trunk = Trunk(self.network, self.params.lora.layers, self.group)
        for _ in trunk.compute(trial.examples, len(trial.examples)):
            pass
        difference = self._difference(trunk, trial)
        if difference > TOLERANCE:
            print(f"trunk: off, it differs by {difference:.1e} on a trial batch", file=sys.stderr)
            return
        with tqdm(
            total=len(examples), desc="trunk", unit="pair", delay=2, disable=self.quiet
        ) as bar:
            for count in trunk.compute(examples, self.params.batch_pairs):
                bar.update(count)
        self.trunk = trunk

    @property
    def quiet(self) -> bool | None:
        """For tqdm: one process shows the progress, where there is a terminal."""
        return None if self.group.rank() == 0 else True

    def step(self, batch: Batch, rate: float) -> float:
        """Take one optimizer step and return the batch's mean loss in nats a token."""
        self.network.train()
        self.optimizer.learning_rate = mx.array(rate)
        loss, gradients = self._gradients(self.loss, self.trunk, batch)
        self.optimizer.update(self.network, gradients)
        mx.eval(self.network.trainable_parameters(), self.optimizer.state)
        return loss

    def validate(self, examples: Sequence[Example]) -> float:
        """Mean loss in nats a token over all answer tokens of `examples`."""
        self.network.eval()
        loss = 0.0
        for batch in batches_by_length(examples, self.params.batch_pairs):
            mine = share(batch, self.group.rank(), self.group.size())
            if mine is not None:
                with self._start(self.trunk, mine):
                    logits = row_logits(self.network, self.head, mine)
                    loss += total_loss(np.asarray(logits), mine.targets)
        # float32, as MLX sums: good to 1e-7 of the loss.
        everywhere = float(total(mx.array(loss), self.group))
        return everywhere / sum(len(example.answer) for example in examples)

    def weights(self) -> dict[str, mx.array]:
        """The adapter's arrays by name, as mlx-lm stores them."""
        return dict(tree_flatten(self.network.trainable_parameters()))

    def _gradients(self, loss: Loss, trunk: Trunk | None, batch: Batch) -> tuple[float, Any]:
        """The batch's mean loss and its gradients, summed over what each process computed."""
        tokens = len(batch.targets)
        mine = share(batch, self.group.rank(), self.group.size())
        if mine is None:
            nothing = tree_map(mx.zeros_like, self.network.trainable_parameters())
            return _values(total((mx.array(0.0), nothing), self.group))

        def of_batch(network: Any) -> mx.array:
            with self._start(trunk, mine):
                return loss(network, self.head, mine, tokens)

        computed = nn.value_and_grad(self.network, of_batch)(self.network)
        return _values(total(computed, self.group))

    def _difference(self, trunk: Trunk, batch: Batch) -> float:
        """The largest relative difference in loss and gradients, with the trunk and without it."""
        self.network.eval()
        fast, fast_gradients = self._gradients(self.loss, trunk, batch)
        slow, slow_gradients = self._gradients(self.loss, None, batch)
        differences = [abs(fast - slow) / abs(slow)]
        expected = dict(tree_flatten(slow_gradients))
        largest = max(float(mx.abs(array).max()) for array in expected.values())
        for name, array in tree_flatten(fast_gradients):
            differences.append(float(mx.abs(array - expected[name]).max()) / largest)
        return max(differences)

    def _start(self, trunk: Trunk | None, batch: Batch) -> Any:
        return trunk.standing_in(batch) if trunk else nullcontext()


def _values(computed: tuple[mx.array, Any]) -> tuple[float, Any]:
    loss, gradients = computed
    return float(loss), gradients
