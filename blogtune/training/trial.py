"""Whether another way to compute a step gives what the reference gives, asked before it is used."""

import collections
import math
from pathlib import Path

import mlx.core as mx
import numpy as np

from blogtune.runtime.collectives import broadcast
from blogtune.runtime.device import exact_losses, fast_math
from blogtune.training.activation_cache import ActivationCache
from blogtune.training.examples import Example, make_batch
from blogtune.training.fast.packing import NotPackableError
from blogtune.training.setup import Setup
from blogtune.training.step import Arrays, ReferenceStep, Step

# Relative, of gradients. Two ways compute the same numbers, and a GPU rounds by their shapes.
TOLERANCE = {mx.float32: 1e-4, mx.float16: 5e-3, mx.bfloat16: 3e-2}
# A loss is a mean over many numbers: what is wrong shows less in it.
LOSS_WEIGHT = 10
# Of an answer in the batch on which gradients are compared: the reference keeps much of each token,
# and nobody has asked yet what there is room for.
TRIAL_ANSWER_TOKENS = 16


class Trial:
    """What the reference gives: gradients on a few pairs made short, the loss alone on the longest.

    Positions may be looked at by a text's length, so the longest are among them.
    """

    def __init__(self, setup: Setup) -> None:
        self.group = setup.group
        setup.network.eval()
        few = [
            Example(f"{each.id} cut", each.prompt, each.answer[:TRIAL_ANSWER_TOKENS])
            for each in setup.short_and_middle()
        ]
        self.short, self.long = make_batch(few), make_batch(setup.longest())
        reference = ReferenceStep(setup.network, setup.head)
        hidden = setup.head.hidden(self.short.inputs, self.short.rows[:1])
        self.tolerance = TOLERANCE[hidden.dtype]
        with exact_losses():
            self.expected = reference.loss_and_gradients(self.short)
            mx.eval(self.expected)
        with exact_losses(), fast_math():
            self.loss = float(reference.validation_loss(self.long))

    def error(self, step: Step, cache: ActivationCache | None) -> float:
        """The largest relative difference, infinite where it fails; the first process's."""
        data = repr(self._own_error(step, cache)).encode()
        return float(broadcast(data, self.group))

    def _own_error(self, step: Step, cache: ActivationCache | None) -> float:
        examples = [*self.short.examples, *self.long.examples]
        try:
            if cache:
                with fast_math():
                    collections.deque(cache.fill(examples, 1, "memory", Path()), 0)
            found = step.loss_and_gradients(self.short)
            losses = [(step.validation_loss(self.short), float(self.expected[0]))]
            losses += [(step.validation_loss(self.long), self.loss)]
        except NotPackableError:
            return math.inf
        errors = [abs(float(loss) - expected) / abs(expected) for loss, expected in losses]
        error = max_relative_error(found, self.expected)
        return float(np.max([LOSS_WEIGHT * np.max(errors), error]))


def max_relative_error(found: tuple[mx.array, Arrays], expected: tuple[mx.array, Arrays]) -> float:
    """Of loss and gradients, the latter relative to the largest of them; NaN for a NaN."""
    (loss, gradients), (own_loss, own_gradients) = found, expected
    if gradients.keys() != own_gradients.keys():
        return math.inf
    largest = max(float(mx.abs(array).max()) for array in own_gradients.values())
    errors = [float(mx.abs(gradients[n] - own).max()) / largest for n, own in own_gradients.items()]
    return float(np.max([abs(float(loss - own_loss)) / abs(float(own_loss)), *errors]))
