"""SwiGLU: silu(gate) * x (Shazeer 2020, arXiv 2002.05202), its sigmoid in numpy.

Measured, 8 x 112 tokens of SmolLM2-135M: 27 ms in MLX, 4 here.
"""

from collections.abc import Sequence
from typing import cast

import mlx.core as mx
import numpy as np
from mlx_lm.models.activations import swiglu as mlx_swiglu

from blogtune.cpu.parts import Array, parts
from blogtune.models.gradients import with_gradient


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """As mlx-lm's, of any shape."""
    if gate.dtype != mx.float32 or x.dtype != mx.float32:
        return cast("mx.array", mlx_swiglu(gate, x))
    return _swiglu(gate, x)


def _forward(gate: mx.array, x: mx.array) -> mx.array:
    # Together: each time MLX is asked for a value costs two changes of thread.
    mx.eval(gate, x)
    ours, theirs = np.asarray(gate).reshape(-1), np.asarray(x).reshape(-1)
    out = np.empty_like(ours)
    for part in parts(out.size):
        silu = _one_and_exponential(ours[part], out[part])
        np.divide(ours[part], silu, out=silu)
        silu *= theirs[part]
    return mx.array(out).reshape(gate.shape)


def _backward(
    primals: Sequence[mx.array], cotangent: mx.array, _: mx.array
) -> tuple[mx.array, mx.array]:
    gate, x, given = (np.asarray(array).reshape(-1) for array in (*primals, cotangent))
    to_gate, to_x = np.empty_like(gate), np.empty_like(gate)
    for part in parts(gate.size):
        sigmoid = _one_and_exponential(gate[part], np.empty_like(gate[part]))
        np.reciprocal(sigmoid, out=sigmoid)
        silu = np.multiply(sigmoid, gate[part], out=to_x[part])
        slope = np.subtract(1.0, sigmoid, out=to_gate[part])
        slope *= silu
        slope += sigmoid
        slope *= x[part]
        slope *= given[part]
        silu *= given[part]
    shape = cotangent.shape
    return mx.array(to_gate).reshape(shape), mx.array(to_x).reshape(shape)


_swiglu = with_gradient(_forward, _backward)


# Far below zero the exponential is infinite and the sigmoid 0, as it should be.
@np.errstate(over="ignore", invalid="ignore")
def _one_and_exponential(x: Array, out: Array) -> Array:
    """1 + exp(-x), in `out`."""
    np.negative(x, out=out)
    np.exp(out, out=out)
    out += 1.0
    return out
