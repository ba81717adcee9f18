"""The output layer, wrapped to project only the rows that someone will look at."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int32]


class _EnteredError(Exception):
    """The output layer was called; `hidden` is what it was given at the chosen rows."""

    def __init__(self, hidden: mx.array) -> None:
        super().__init__()
        self.hidden = hidden


class RowHead(nn.Module):
    """Stands in for the output layer and projects only the chosen rows.

    With tied weights the embedding is the output layer as well, and is still asked to embed.
    """

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        # None chosen: all. In lists, because an array attribute would count as a parameter.
        self._rows: list[mx.array] = []
        self._given: list[mx.array] = []
        self._ends = False
        self._goes_through = inner is not None

    def logits(self, network: Any, inputs: Integers, rows: Integers, cache: Any = None) -> mx.array:
        """float32 logits of the network that this is the head of, shape (rows, vocabulary).

        `rows` count in the flattened (batch x length) `inputs`.
        """
        self._rows[:] = [mx.array(rows)]
        try:
            logits = network(mx.array(inputs), cache=cache).astype(mx.float32)
        finally:
            self._rows.clear()
        if logits.ndim == 3:
            logits = logits.reshape(-1, logits.shape[-1])[mx.array(rows)]
        return logits

    def hidden(self, network: Any, inputs: Integers, rows: Integers) -> mx.array | None:
        """What enters the output layer at `rows`, shape (rows, width); nothing is projected.

        None where the network's output goes another way.
        """
        if not self._goes_through:
            return None
        self._rows[:] = [mx.array(rows)]
        self._ends = True
        try:
            network(mx.array(inputs))
        except _EnteredError as entered:
            return entered.hidden
        finally:
            self._ends = False
            self._rows.clear()
        self._goes_through = False
        return None

    @contextmanager
    def given(self, hidden: mx.array) -> Generator[None]:
        """While the block runs, the layer projects `hidden`, whatever the network hands it."""
        self._given[:] = [hidden]
        try:
            yield
        finally:
            self._given.clear()

    def __call__(self, x: mx.array) -> mx.array:
        embeds = isinstance(self.inner, (nn.Embedding, nn.QuantizedEmbedding))
        return self.inner(x) if embeds else self.inner(self._chosen(x))

    def as_linear(self, x: mx.array) -> mx.array:
        return self.inner.as_linear(self._chosen(x))

    @property
    def weight(self) -> mx.array:
        """For networks that multiply with it themselves: nothing is chosen then."""
        return self.inner.weight

    def _chosen(self, x: mx.array) -> mx.array:
        if self._given:
            return self._given[0]
        chosen = x.reshape(-1, x.shape[-1])[self._rows[0]] if self._rows else x
        if self._ends:
            raise _EnteredError(chosen)
        return chosen


def put_row_head(network: Any) -> RowHead:
    """Wrap the network's output layer, once; it projects as before where no rows are chosen.

    Where the layer has another name, nothing is wrapped, and `logits` takes the rows later.
    """
    for owner, name in ((network, "lm_head"), (network.get("model", {}), "embed_tokens")):
        if isinstance(owner.get(name), nn.Module):
            if isinstance(owner[name], RowHead):
                return owner[name]
            head = RowHead(owner[name])
            head.freeze()
            setattr(owner, name, head)
            return head
    return RowHead(None)
