"""The output layer, wrapped to project only the rows that someone will look at."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int32]


class RowHead(nn.Module):
    """Stands in for the output layer and projects only the chosen rows.

    With tied weights the embedding is the output layer as well, and is still asked to embed.
    """

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        # None chosen: all. In a list, because an array attribute would count as a parameter.
        self._rows: list[mx.array] = []

    def logits(self, network: Any, inputs: Integers, rows: Integers, cache: Any = None) -> mx.array:
        """float32 logits of the network that this is the head of, shape (rows, vocabulary).

        `rows` count in the flattened (batch x length) `inputs`.
        """
        self._rows[:] = [mx.array(rows)]
        logits = network(mx.array(inputs), cache=cache).astype(mx.float32)
        if logits.ndim == 3:
            logits = logits.reshape(-1, logits.shape[-1])[mx.array(rows)]
        return logits

    def __call__(self, x: mx.array) -> mx.array:
        embeds = isinstance(self.inner, (nn.Embedding, nn.QuantizedEmbedding))
        return self.inner(x) if embeds else self.inner(self._chosen(x))

    def as_linear(self, x: mx.array) -> mx.array:
        return self.inner.as_linear(self._chosen(x))

    def _chosen(self, x: mx.array) -> mx.array:
        return x.reshape(-1, x.shape[-1])[self._rows[0]] if self._rows else x


def put_row_head(network: Any) -> RowHead:
    """Wrap the network's output layer; afterwards it returns logits of shape (rows, vocabulary).

    Where the layer has another name, nothing is wrapped, and `logits` takes the rows later.
    """
    for owner, name in ((network, "lm_head"), (network.get("model", {}), "embed_tokens")):
        if name in owner:
            head = RowHead(owner[name])
            head.freeze()
            setattr(owner, name, head)
            return head
    return RowHead(None)
