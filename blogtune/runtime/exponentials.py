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

PART = 16_384
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
    batch, heads, length, _ = queries.shape
    groups, known = keys.shape[1], keys.shape[2]
    float32 = queries.dtype == keys.dtype == values.dtype == mx.float32
    # A mask of its own for every head is rare, and not worth a case.
    plain = mask is None or isinstance(mask, str) or (mask.ndim < 4 or mask.shape[1] == 1)
    if not float32 or not plain or sinks is not None or others:
        return mlx_attention(queries, keys, values, scale=scale, mask=mask, sinks=sinks, **others)
    # The heads that share a key stand together: fewer and larger products.
    shared = (queries * scale).reshape(batch, groups, -1, queries.shape[-1])
    scores = (shared @ keys.swapaxes(-1, -2)).reshape(batch, heads, length, known)
    weights = _softmax(_masked(scores, mask))
    output = weights.reshape(batch, groups, -1, known) @ values
    return output.reshape(batch, heads, length, -1)


def _masked(scores: mx.array, mask: mx.array | str | None) -> mx.array:
    if mask is None:
        return scores
    if isinstance(mask, str):
        length, known = scores.shape[-2:]
        mask = mx.arange(known - length, known)[:, None] >= mx.arange(known)
    if mask.dtype != mx.bool_:
        return scores + mask
    return mx.where(mask, scores, mx.array(mx.finfo(mx.float32).min))


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
        distance = np.abs(ours) * np.float32(0.5**0.5)
        t = np.reciprocal(1.0 + np.float32(ERF_SCALE) * distance)
        series = np.polyval(np.array([*ERF, 0.0], np.float32), t)
        beyond = 0.5 * series * np.exp(-distance * distance)
        out[part] = ours * np.where(ours > 0.0, 1.0 - beyond, beyond)
    return mx.array(out).reshape(x.shape)


def _swiglu_value(gate: mx.array, x: mx.array) -> mx.array:
    ours, theirs = np.asarray(gate).reshape(-1), np.asarray(x).reshape(-1)
    out = np.empty_like(ours)
    for part in _parts(out.size):
        out[part] = _sigmoid(ours[part]) * ours[part] * theirs[part]
    return mx.array(out).reshape(gate.shape)


def _swiglu_gradients(
    primals: Sequence[mx.array], cotangent: mx.array, _: mx.array
) -> tuple[mx.array, mx.array]:
    gate, x, given = (np.asarray(array).reshape(-1) for array in (*primals, cotangent))
    to_gate, to_x = np.empty_like(gate), np.empty_like(gate)
    for part in _parts(gate.size):
        sigmoid = _sigmoid(gate[part])
        silu = sigmoid * gate[part]
        to_gate[part] = (sigmoid + silu * (1.0 - sigmoid)) * x[part] * given[part]
        to_x[part] = silu * given[part]
    shape = cotangent.shape
    return mx.array(to_gate).reshape(shape), mx.array(to_x).reshape(shape)


# What is no number shows in the loss, where the loop looks for it.
@np.errstate(invalid="ignore")
def _softmax_value(scores: mx.array) -> mx.array:
    values: Array = np.asarray(scores)
    out = values - values.max(axis=-1, keepdims=True)
    np.exp(out, out=out)
    out /= out.sum(axis=-1, keepdims=True)
    return mx.array(out)


def _softmax_gradient(_: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    weighted = output * cotangent
    return weighted - output * weighted.sum(axis=-1, keepdims=True)


_swiglu: Any = mx.custom_function(_swiglu_value)
_swiglu.vjp(_swiglu_gradients)
_softmax: Any = mx.custom_function(_softmax_value)
_softmax.vjp(_softmax_gradient)


def _sigmoid(x: Array) -> Array:
    # Far below zero the exponential is infinite and the sigmoid 0, as it should be.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.reciprocal(1.0 + np.exp(-x), dtype=np.float32)


def _parts(count: int) -> Iterator[slice]:
    """Parts so small that what is computed of one stays in the processor's cache."""
    return (slice(start, start + PART) for start in range(0, count, PART))
