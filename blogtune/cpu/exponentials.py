"""Functions whose exponentials numpy computes: MLX does it one by one on x86, numpy many at once.

On a CPU the gate of the MLP and the softmax of the attention are most of a block's time beside its
matrix products (measured, 8 x 112 tokens of SmolLM2-135M: SiLU 27 ms against 4, softmax 14 against
3), and GELU is most of a sentence encoder's.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from blogtune.cpu.gradients import with_gradient

PART = 32_768
# What keeps a position from being attended to.
NEVER = float(np.finfo(np.float32).min)
# Of erf's approximation; its error is at most 1.5e-7, about that of a float32 near 1.
ERF_SCALE = 0.3275911
ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
Array = npt.NDArray[np.float32]
mlx_attention = mx.fast.scaled_dot_product_attention


def attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    *,
    scale: float,
    mask: mx.array | str | None = None,
    sinks: mx.array | None = None,
    **others: Any,
) -> mx.array:
    """Scaled dot-product attention; arguments and result as those of the MLX function."""
    float32 = queries.dtype == keys.dtype == values.dtype == mx.float32
    if not float32 or sinks is not None or others:
        return mlx_attention(queries, keys, values, scale=scale, mask=mask, sinks=sinks, **others)
    batch, heads, length, _ = queries.shape
    groups, known = keys.shape[1], keys.shape[2]
    bias = _bias(mask, length, known)
    kept: list[mx.array] = []

    # The heads that share a key stand together: fewer and larger products.
    def grouped(array: mx.array) -> mx.array:
        return array.reshape(batch, groups, -1, array.shape[-1])

    def value(queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
        scores = np.asarray(grouped(queries) @ keys.swapaxes(-1, -2))
        weights = _softmax(scores.reshape(batch, heads, length, known), scale, bias)
        kept[:] = [grouped(mx.array(weights))]
        return (kept[0] @ values).reshape(batch, heads, length, -1)

    def gradients(
        primals: Sequence[mx.array], cotangent: mx.array, _: mx.array
    ) -> tuple[mx.array, mx.array, mx.array]:
        queries, keys, values = primals
        weights, given = kept[0], grouped(cotangent)
        to_weights = given @ values.swapaxes(-1, -2)
        to_scores = _softmax_gradient(np.asarray(weights), np.asarray(to_weights), scale)
        scores = mx.array(to_scores)
        to_queries = (scores @ keys).reshape(queries.shape)
        to_keys = scores.swapaxes(-1, -2) @ grouped(queries)
        return to_queries, to_keys, weights.swapaxes(-1, -2) @ given

    attended: mx.array = with_gradient(value, gradients)(queries, keys, values)
    return attended


def _bias(mask: mx.array | str | None, length: int, known: int) -> Array | None:
    """What a mask adds to the scores, of a shape that fits theirs."""
    if mask is None:
        return None
    if isinstance(mask, str):
        return np.triu(np.full((length, known), NEVER, np.float32), known - length + 1)
    if mask.dtype == mx.bool_:
        mask = mx.where(mask, 0.0, NEVER)
    return np.asarray(mask.astype(mx.float32))


# What is no number shows in the loss, where the loop looks for it.
@np.errstate(invalid="ignore", over="ignore")
def _softmax(scores: Array, scale: float, bias: Array | None) -> Array:
    """Softmax over the last axis of scale * scores + bias, (rows, heads, length, known)."""
    out = np.empty_like(scores)
    biases = None if bias is None else np.broadcast_to(bias, scores.shape)
    for part in _parts(len(scores), scores[0].size):
        weights = np.multiply(scores[part], np.float32(scale), out=out[part])
        if biases is not None:
            weights += biases[part]
        weights -= weights.max(axis=-1, keepdims=True)
        np.exp(weights, out=weights)
        weights /= weights.sum(axis=-1, keepdims=True)
    return out


def _softmax_gradient(weights: Array, given: Array, scale: float) -> Array:
    """The gradient at the scores, (rows, groups, heads of a group x length, known)."""
    out = np.empty_like(weights)
    for part in _parts(len(weights), weights[0].size):
        weighted = np.multiply(weights[part], given[part], out=out[part])
        weighted -= weights[part] * weighted.sum(axis=-1, keepdims=True)
        weighted *= np.float32(scale)
    return out


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """silu(gate) * x, of any shape, for float32."""
    return _swiglu(gate, x)


# Far from 0 the square is infinite and its exponential 0, as it should be.
@np.errstate(over="ignore")
def gelu(x: mx.array) -> mx.array:
    """x times the normal distribution's share below x, for float32; without a gradient.

    By Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 7.1.26.
    """
    values: Array = np.asarray(x).reshape(-1)
    out = np.empty_like(values)
    for part in _parts(values.size):
        ours = values[part]
        far = np.abs(ours)
        distance = far * np.float32(0.5**0.5)
        t = np.reciprocal(1.0 + np.float32(ERF_SCALE) * distance)
        beyond = np.polyval(np.array([*ERF, 0.0], np.float32), t)
        beyond *= np.exp(-distance * distance)
        # Twice the share beyond x, on the side where it lies.
        beyond *= far
        beyond *= 0.5
        np.subtract(np.maximum(ours, 0.0), beyond, out=out[part])
    return mx.array(out).reshape(x.shape)


def _swiglu_value(gate: mx.array, x: mx.array) -> mx.array:
    # Together: each time MLX is asked for a value costs two changes of thread.
    mx.eval(gate, x)
    ours, theirs = np.asarray(gate).reshape(-1), np.asarray(x).reshape(-1)
    out = np.empty_like(ours)
    for part in _parts(out.size):
        silu = _one_and_exponential(ours[part], out[part])
        np.divide(ours[part], silu, out=silu)
        silu *= theirs[part]
    return mx.array(out).reshape(gate.shape)


def _swiglu_gradients(
    primals: Sequence[mx.array], cotangent: mx.array, _: mx.array
) -> tuple[mx.array, mx.array]:
    gate, x, given = (np.asarray(array).reshape(-1) for array in (*primals, cotangent))
    to_gate, to_x = np.empty_like(gate), np.empty_like(gate)
    for part in _parts(gate.size):
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


_swiglu = with_gradient(_swiglu_value, _swiglu_gradients)


# Far below zero the exponential is infinite and the sigmoid 0, as it should be.
@np.errstate(over="ignore", invalid="ignore")
def _one_and_exponential(x: Array, out: Array) -> Array:
    """1 + exp(-x), in `out`."""
    np.negative(x, out=out)
    np.exp(out, out=out)
    out += 1.0
    return out


def _parts(count: int, size: int = 1) -> Iterator[slice]:
    """Parts so small that what is computed of one stays in the processor's cache.

    Of `count` things that have `size` numbers each.
    """
    step = max(1, PART // size)
    return (slice(start, start + step) for start in range(0, count, step))
