"""Blocks whose trace lets go of what a gradient was computed from.

`blogtune.cpu` asks for values while MLX traces, and what is computed in a trace lives to its end:
with each gradient all that led to it, down the residual stream. A copy between two blocks ends that
chain. 470 MB a step became 280 (one process, 4 x 140 tokens of SmolLM2-135M).
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from blogtune.models.blocks import StandIn
from blogtune.models.gradients import detach, detach_gradient, with_gradient
from blogtune.training.recompute import as_function


class Cut(StandIn):
    """Its block, with nothing kept of how the gradient at what enters it came about."""

    def __call__(self, x: mx.array, *others: Any, **named: Any) -> mx.array:
        return self.block(detach_gradient(x), *others, **named)


class RecomputedCut(StandIn):
    """Computes its block twice, as `Recomputed`: here with arrays that no trace knows."""

    def __call__(self, x: mx.array, *others: Any, **named: Any) -> mx.array:
        arrays, run = as_function(self.block, others, named)

        def forward(*inputs: mx.array) -> mx.array:
            return detach(run(*map(detach, inputs)))

        def backward(primals: Sequence[mx.array], cotangent: mx.array, _: mx.array) -> Any:
            gradients = mx.vjp(run, [detach(each) for each in primals], [cotangent])[1]
            return tuple(detach(each) for each in gradients)

        out: mx.array = with_gradient(forward, backward)(x, *arrays)
        return out
