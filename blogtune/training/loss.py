"""Cross-entropy on answer tokens, forward and backward in one pass over pieces of rows.

Only the rows that predict an answer token reach the output layer, ROWS of them at most, and each
piece's gradient is taken before the next is projected: never are there more logits than ROWS x
vocabulary. Whatever an architecture does behind its output layer (scaling, softcaps) is done by its
own code, which runs on a piece with no blocks below it. On a CPU loss and gradient at the logits
are computed in numpy, whose exponentials are 28 times as fast there (measured: 600 x 49,152 in
12 ms against 335). There, where an output layer has nothing behind it, pieces of the vocabulary
take the place of pieces of rows: their logits are used while they lie in the processor's cache.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from blogtune.cpu.gradients import known_number, with_gradient
from blogtune.models.head import RowHead
from blogtune.training.blocks import exchanged, list_of_blocks
from blogtune.training.examples import Batch
from blogtune.training.lean import copied

Logits = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
PieceLoss = Callable[[mx.array, Integers], mx.array]
# Of a piece: 88 MB of logits for a vocabulary of 49,152. BLAS packs the output layer's weights anew
# for every piece.
ROWS = 448
# Numbers that numpy walks over at a time: they stay in the processor's cache.
PART = 1 << 18
# Of the vocabulary, in such a piece: 1.5 MB of logits for 375 rows.
WORDS = 1024
# Between these the logarithm of a sum of exponentials is good to 4e-6.
LEAST, MOST = 1e-20, 1e30


def answer_loss(
    network: Any, head: RowHead, batch: Batch, tokens: int, of_piece: PieceLoss
) -> mx.array:
    """Cross-entropy summed over the batch's answer tokens, in nats, divided by `tokens`.

    `of_piece` is a `HostLoss` or `plain_loss`. Differentiable in the network's parameters below its
    output layer, which itself is taken as frozen.
    """
    hidden = head.hidden(network, batch.inputs, batch.rows)
    if hidden is None:
        logits = head.logits(network, batch.inputs, batch.rows)
        return of_piece(logits, batch.targets) / tokens
    found = of_piece.in_words(hidden, batch.targets) if isinstance(of_piece, HostLoss) else None
    loss, gradient = found or _in_rows(network, head, hidden, batch.targets, of_piece)
    # The gradient at `hidden` is known; what it does below is MLX's to find.
    return known_number(loss / tokens, hidden, mx.array(gradient / tokens))


def _in_rows(
    network: Any, head: RowHead, hidden: mx.array, targets: Integers, of_piece: PieceLoss
) -> tuple[float, Logits]:
    """Cross-entropy summed over the rows, and its gradient at `hidden`."""
    loss, gradients = 0.0, list[Logits]()
    for piece, theirs in _pieces(hidden, targets):

        def of(rows: mx.array, targets: Integers = theirs) -> mx.array:
            return of_piece(_project(network, head, rows), targets)

        value, gradient = mx.value_and_grad(of)(mx.stop_gradient(piece))
        loss += float(value)
        # A copy, because the array itself would keep the piece's logits.
        gradients.append(np.array(gradient.astype(mx.float32)))
    return loss, np.concatenate(gradients)


def answer_loss_value(network: Any, head: RowHead, batch: Batch, of_piece: PieceLoss) -> float:
    """Cross-entropy summed over the batch's answer tokens, in nats, without a gradient."""
    hidden = head.hidden(network, batch.inputs, batch.rows)
    if hidden is None:
        logits = head.logits(network, batch.inputs, batch.rows)
        return float(of_piece(logits, batch.targets))
    pieces = _pieces(hidden, batch.targets)
    return sum(float(of_piece(_project(network, head, rows), these)) for rows, these in pieces)


def plain_loss(logits: mx.array, targets: Integers) -> mx.array:
    """Cross-entropy in nats, summed over the rows."""
    return nn.losses.cross_entropy(logits.astype(mx.float32), mx.array(targets)).sum()


class HostLoss:
    """As `plain_loss`, in value and gradient, with the exponentials on the host.

    A gradient lies in memory that the next one is written to, and must have been used by then.
    `weights` are what `plain_weights` gives.
    """

    def __init__(self, weights: mx.array | None = None) -> None:
        self._weights = weights
        self._room = mx.zeros((0, 0))

    def __call__(self, logits: mx.array, targets: Integers) -> mx.array:
        gradients: list[mx.array] = []

        def value(logits: mx.array) -> mx.array:
            gradient = self._room_for(logits)
            # Numpy writes into MLX's own memory: a copy of so large an array costs time and memory.
            loss = cross_entropy(np.asarray(logits), targets, np.asarray(gradient))
            gradients.append(gradient)
            return mx.array(loss)

        def backward(_logits: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
            # Taken out, because what the trace holds of this function lives on.
            gradient = gradients.pop()
            return gradient if cotangent.item() == 1.0 else gradient * cotangent

        loss: mx.array = with_gradient(value, backward)(logits.astype(mx.float32))
        return loss

    # What is no number is told by the loop, in one line.
    @np.errstate(over="ignore", invalid="ignore")
    def in_words(self, hidden: mx.array, targets: Integers) -> tuple[float, Logits] | None:
        """Cross-entropy summed over the rows, and its gradient at `hidden`, (rows, width).

        None where the logits are more than that layer's, or so large or small that they must be
        shifted.
        """
        if self._weights is None:
            return None
        # Else a trace would keep every piece.
        given = copied(hidden)
        totals = np.zeros(len(targets), np.float32)
        towards = mx.zeros(given.shape)
        for start in range(0, len(self._weights), WORDS):
            words = self._weights[start : start + WORDS]
            logits = given @ words.T
            shares = np.asarray(logits)
            # In place: `logits` then are the exponentials.
            totals += np.exp(shares, out=shares).sum(axis=1)
            towards = mx.addmm(towards, logits, words)
            mx.eval(towards)
        if not np.all((totals > LEAST) & (totals < MOST)):
            return None
        own = np.asarray(self._weights[mx.array(targets)], np.float32)
        chosen = np.einsum("rw,rw->r", np.asarray(given), own)
        loss = float(np.sum(np.log(totals) - chosen, dtype=np.float64))
        gradient = np.asarray(towards, np.float32) * np.reciprocal(totals)[:, None]
        return loss, gradient - own

    def _room_for(self, logits: mx.array) -> mx.array:
        rows, vocabulary = logits.shape
        if len(self._room) < rows or self._room.shape[1] != vocabulary:
            # Let go before more is asked for.
            self._room = mx.zeros((0, 0))
            self._room = mx.zeros((rows, vocabulary))
        return self._room[:rows]


# The loop tells of a loss that is no number, in one line.
@np.errstate(over="ignore", invalid="ignore")
def cross_entropy(logits: Logits, targets: Integers, gradient: Logits) -> float:
    """Cross-entropy in nats, summed over the rows; `gradient` takes its gradient at the logits."""
    rows, vocabulary = logits.shape
    loss = 0.0
    for start in range(0, rows, max(1, PART // vocabulary)):
        part = slice(start, start + max(1, PART // vocabulary))
        ours, shares = logits[part], gradient[part]
        places = np.arange(len(ours)), targets[part]
        chosen = ours[places]
        totals = np.exp(ours, out=shares).sum(axis=1)
        # Rarely are logits so large or small that they must be shifted first, which takes longer.
        if not np.all((totals > LEAST) & (totals < MOST)):
            highest = ours.max(axis=1)
            chosen = chosen - highest
            np.subtract(ours, highest[:, None], out=shares)
            totals = np.exp(shares, out=shares).sum(axis=1)
        loss += float(np.sum(np.log(totals) - chosen, dtype=np.float64))
        shares *= np.reciprocal(totals)[:, None]
        shares[places] -= 1.0
    return loss


def plain_weights(network: Any, head: RowHead) -> mx.array | None:
    """The output layer's weights, (vocabulary, width), if logits are hidden @ weights.T in float32.

    None where an architecture does something else besides, or has them in another form.
    """
    weights = head.inner.get("weight") if head.inner is not None else None
    if weights is None or weights.dtype != mx.float32:
        return None
    # Far from 0, where a softcap shows.
    rows = 10.0 * np.random.default_rng(0).standard_normal((2, weights.shape[1]))
    trial = mx.array(rows.astype(np.float32))
    logits, expected = _project(network, head, trial), trial @ weights.T
    same = logits.shape == expected.shape
    return weights if same and mx.allclose(logits, expected, 1e-5, 1e-5).item() else None


def _pieces(hidden: mx.array, targets: Integers) -> Iterator[tuple[mx.array, Integers]]:
    for rows in np.array_split(np.arange(len(targets)), math.ceil(len(targets) / ROWS)):
        part = slice(rows[0], rows[-1] + 1)
        yield hidden[part], targets[part]


def _project(network: Any, head: RowHead, hidden: mx.array) -> mx.array:
    """Logits of these rows: the network's own way from its output layer on, (rows, vocabulary)."""
    blocks = list_of_blocks(network)
    with exchanged(blocks, range(len(blocks))), head.given(hidden):
        # One token, whatever it is: what the output layer is given takes its place.
        logits: mx.array = network(mx.array([[0]]))
    return logits.reshape(-1, logits.shape[-1])
