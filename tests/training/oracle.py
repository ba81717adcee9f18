"""The loss in its simplest form, against which every shortcut is held."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from blogtune.training.examples import Batch


def full_logits(network: Any, batch: Batch) -> mx.array:
    """What the untouched network says at the batch's rows, in float32."""
    logits = network(mx.array(batch.inputs)).astype(mx.float32)
    return logits.reshape(-1, logits.shape[-1])[mx.array(batch.rows)]


def simple_loss(network: Any, batch: Batch, tokens: int = 1) -> mx.array:
    """Cross-entropy over the batch's answer tokens, divided by `tokens`."""
    logits = full_logits(network, batch)
    return nn.losses.cross_entropy(logits, mx.array(batch.targets)).sum() / tokens


def simple_step(network: Any, batch: Batch) -> dict[str, Any]:
    """That loss and its gradients by name."""
    loss, gradients = nn.value_and_grad(network, lambda m: simple_loss(m, batch))(network)
    mx.eval(loss, gradients)
    return {"loss": loss, **dict(tree_flatten(gradients))}
