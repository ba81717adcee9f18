"""What a step's trace keeps until its backward pass is over, and no more than that.

On a CPU numpy's exponentials ask for values while MLX still traces. What is computed then stays in
memory to the end of the step: every part of a norm, and behind every gradient whatever led to it.
In here such a chain is cut by a copy, of which MLX does not know where it came from. Measured, 8
blocks of SmolLM2-135M, 4 x 140 tokens: 430 MB beyond the weights where there were 1,280.

With gradient checkpointing (Chen et al. 2016, arXiv 1604.06174) a block keeps its input alone.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from blogtune.runtime.device import on_cpu
from blogtune.runtime.gradients import with_gradient
from blogtune.training.blocks import StandIn, exchanged, list_of_blocks

mlx_rope, mlx_rms_norm = mx.fast.rope, mx.fast.rms_norm


@contextmanager
def lean(network: Any, adapted: int, *, recompute: bool) -> Generator[None]:
    """While the block runs, a trace of the network's top blocks keeps what their gradients need.

    With `recompute` only what enters them. Their parameters are exchanged for arrays with the same
    values.
    """
    blocks = list_of_blocks(network)
    places = range(len(blocks) - adapted, len(blocks))
    if not on_cpu():
        with exchanged(blocks, places if recompute else range(0), _RecomputedLater):
            yield
        return
    for place in places:
        trained = dict(tree_flatten(blocks[place].trainable_parameters()))
        cut = _cut(*trained.values())
        blocks[place].update(tree_unflatten(list(zip(trained, cut, strict=True))))
    mx.fast.rope, mx.fast.rms_norm = _rope, _rms_norm
    try:
        with exchanged(blocks, places, _Recomputed if recompute else _Cut):
            yield
    finally:
        mx.fast.rope, mx.fast.rms_norm = mlx_rope, mlx_rms_norm


class _Cut(StandIn):
    """Computes its block; its gradient holds nothing of the blocks above."""

    def __call__(self, x: mx.array, *others: Any, **named: Any) -> mx.array:
        out = self.block(x, *others, **named)
        return _cut(out)[0] if isinstance(out, mx.array) else out


class _Recomputed(StandIn):
    """Computes its block twice: now, and for its gradients, with the same random numbers."""

    def __call__(self, x: mx.array, *others: Any, **named: Any) -> mx.array:
        trained: dict[str, mx.array] = dict(tree_flatten(self.block.trainable_parameters()))
        seed = _drawn()

        def block(x: mx.array, *arrays: mx.array) -> mx.array:
            self.block.update(tree_unflatten(list(zip(trained, arrays, strict=True))))
            afterwards = _drawn()
            mx.random.seed(seed)
            out = self.block(x, *others, **named)
            mx.random.seed(afterwards)
            return out

        return self.kept(block)(x, *trained.values())

    def kept(self, block: Callable[..., mx.array]) -> Callable[..., mx.array]:
        """The function, of which a trace keeps the arguments."""

        def value(*given: mx.array) -> mx.array:
            return _copied(block(*given))

        def gradients(given: Any, cotangent: mx.array, _: mx.array) -> list[mx.array]:
            return [_copied(each) for each in mx.vjp(block, list(given), [cotangent])[1]]

        return with_gradient(value, gradients)


class _RecomputedLater(_Recomputed):
    """The same where MLX computes nothing before the whole step is traced."""

    def kept(self, block: Callable[..., mx.array]) -> Callable[..., mx.array]:
        return mx.checkpoint(block)


def _drawn() -> int:
    """A seed that follows from MLX's random state."""
    return int(np.asarray(mx.random.randint(0, 1 << 31, (), mx.uint32)))


def _same(*x: mx.array) -> list[mx.array]:
    return list(x)


def _gradients(_: Any, cotangents: list[mx.array], __: Any) -> list[mx.array]:
    mx.eval(cotangents)
    return [_copied(each) for each in cotangents]


_cut = with_gradient(_same, _gradients)


def _copied(x: mx.array) -> mx.array:
    return mx.array(np.asarray(x.astype(mx.float32))).astype(x.dtype)


def _rope(x: mx.array, dims: int, *, scale: float, **settings: Any) -> mx.array:
    """Rotary positions, as the MLX function; backward they are turned the other way."""

    def turned(x: mx.array) -> mx.array:
        return _copied(mlx_rope(x, dims, scale=scale, **settings))

    def turned_back(_: mx.array, cotangent: mx.array, __: mx.array) -> mx.array:
        return mlx_rope(cotangent, dims, scale=-scale, **settings)

    return with_gradient(turned, turned_back)(x)


def _rms_norm(x: mx.array, weight: mx.array | None, eps: float, **others: Any) -> mx.array:
    """As the MLX function; backward its parts are computed again. The weight is a frozen one."""

    def norm(x: mx.array) -> mx.array:
        return mlx_rms_norm(x, weight, eps, **others)

    def normed(x: mx.array) -> mx.array:
        return _copied(norm(x))

    def gradient(x: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
        return mx.vjp(norm, [x], [cotangent])[1][0]

    return with_gradient(normed, gradient)(x)
