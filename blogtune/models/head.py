"""The output layer, parted from the network below it: what enters it, and what it makes of that.

Whatever an architecture does behind its output layer (scaling, softcaps) is done by its own code.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from blogtune.models.blocks import StandIn, exchanged, list_of_blocks

Integers = npt.NDArray[np.int32]


class Head(Protocol):
    """A network in two parts."""

    def hidden(self, inputs: Integers, rows: Integers, cache: Any = None) -> mx.array:
        """What enters the output layer at `rows` of the flattened (batch x length) `inputs`.

        (rows, width); no logit is computed.
        """
        ...

    def project(self, hidden: mx.array) -> mx.array:
        """Its float32 logits, (rows, vocabulary)."""
        ...


def open_head(network: Any) -> Head:
    """The network's output layer, wrapped once, or the network as a whole where none is found.

    Some networks go past the layer of that name (Helium), some have it under another.
    """
    for owner, name in ((network, "lm_head"), (network.get("model", {}), "embed_tokens")):
        layer = owner.get(name)
        if isinstance(layer, nn.Module):
            if not isinstance(layer, _Wrapped):
                layer = _Wrapped(layer)
                layer.freeze()
                setattr(owner, name, layer)
            head = OutputLayer(network, layer)
            return head if head.is_entered() else Whole(network)
    return Whole(network)


class OutputLayer:
    """The head of a network that goes through its output layer."""

    def __init__(self, network: Any, layer: "_Wrapped") -> None:
        self.network = network
        self.layer = layer
        self.blocks = list_of_blocks(network)

    def hidden(self, inputs: Integers, rows: Integers, cache: Any = None) -> mx.array:
        entered = self._entered(mx.array(inputs), cache)
        assert entered is not None
        return entered.reshape(-1, entered.shape[-1])[mx.array(rows)]

    def project(self, hidden: mx.array) -> mx.array:
        def given(_: mx.array) -> mx.array:
            return self.layer.project(hidden)

        with self._without_blocks(), self.layer.instead(given):
            # One token, whatever it is: what the output layer is given takes its place.
            logits: mx.array = self.network(mx.array([[0]]))
        return logits.reshape(-1, logits.shape[-1]).astype(mx.float32)

    def is_entered(self) -> bool:
        """Whether the network calls this layer for its output."""
        with self._without_blocks():
            return self._entered(mx.array([[0]])) is not None

    def _entered(self, inputs: mx.array, cache: Any = None) -> mx.array | None:
        found: list[mx.array] = []

        def keep(x: mx.array) -> mx.array:
            found.append(x)
            return x

        with self.layer.instead(keep):
            self.network(inputs, cache=cache)
        return found[0] if found else None

    def _without_blocks(self) -> Any:
        return exchanged(self.blocks, {p: StandIn(b) for p, b in enumerate(self.blocks)})


class Whole:
    """The head of a network whose output layer is not found: its logits stand for what enters."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def hidden(self, inputs: Integers, rows: Integers, cache: Any = None) -> mx.array:
        logits = self.network(mx.array(inputs), cache=cache)
        return logits.reshape(-1, logits.shape[-1])[mx.array(rows)].astype(mx.float32)

    def project(self, hidden: mx.array) -> mx.array:
        return hidden


class _Wrapped(nn.Module):
    """Stands around the output layer and does what it does, or something else instead.

    With tied weights the embedding is the output layer as well, and is still asked to embed.
    """

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self._instead: Callable[[mx.array], mx.array] | None = None

    @contextmanager
    def instead(self, function: Callable[[mx.array], mx.array]) -> Generator[None]:
        self._instead = function
        try:
            yield
        finally:
            self._instead = None

    def project(self, x: mx.array) -> mx.array:
        return self.inner.as_linear(x) if self._embeds() else self.inner(x)

    def __call__(self, x: mx.array) -> mx.array:
        return self.inner(x) if self._embeds() else self.as_linear(x)

    def as_linear(self, x: mx.array) -> mx.array:
        return self._instead(x) if self._instead else self.project(x)

    @property
    def weight(self) -> mx.array:
        """For networks that multiply with it themselves: that goes past this layer."""
        return self.inner.weight

    def _embeds(self) -> bool:
        return isinstance(self.inner, (nn.Embedding, nn.QuantizedEmbedding))
