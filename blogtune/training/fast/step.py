"""The reference's own step, computed with what is fast on a CPU."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx

from blogtune.cpu.patches import patched
from blogtune.models.head import Head
from blogtune.training.activation_cache import ActivationCache
from blogtune.training.examples import Batch
from blogtune.training.fast.blocks import Cut, RecomputedCut
from blogtune.training.fast.packing import pack, placed
from blogtune.training.step import Arrays, ReferenceStep


class FastStep:
    """Numpy's exponentials and BLAS's sums around `ReferenceStep`, the batch packed in one row.

    `prefix` tokens stand at the beginning of all examples; with 0 batches are padded.
    """

    def __init__(
        self,
        network: Any,
        head: Head,
        cache: ActivationCache | None,
        adapted: range,
        *,
        prefix: int,
        recompute: bool,
    ) -> None:
        kind = RecomputedCut if recompute else Cut
        self.reference = ReferenceStep(network, head, cache, dict.fromkeys(adapted, kind))
        self.prefix = prefix

    def loss_and_gradients(self, batch: Batch) -> tuple[mx.array, Arrays]:
        with self._fast(batch) as arranged:
            loss, gradients = self.reference.loss_and_gradients(arranged)
            # Here, where the functions that find the gradients are in place.
            mx.eval(loss, gradients)
            return loss, gradients

    def validation_loss(self, batch: Batch) -> mx.array:
        with self._fast(batch) as arranged:
            loss = self.reference.validation_loss(arranged)
            mx.eval(loss)
            return loss

    @contextmanager
    def _fast(self, batch: Batch) -> Generator[Batch]:
        arranged = pack(batch, self.prefix) if self.prefix else batch
        with (
            patched(attention=True, swiglu=True, cross_entropy=True, dropout=True, lora=True),
            placed(arranged),
        ):
            yield arranged
