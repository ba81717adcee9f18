"""GELU in numpy, without a gradient: the sentence encoder's."""

import mlx.core as mx
import numpy as np
from mlx import nn

from blogtune.cpu.parts import Array, parts

# Of erf's approximation; its error is at most 1.5e-7, about that of a float32 near 1.
ERF_SCALE = 0.3275911
ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
mlx_gelu = nn.gelu


# Far from 0 the square is infinite and its exponential 0, as it should be.
@np.errstate(over="ignore")
def gelu(x: mx.array) -> mx.array:
    """x times the normal distribution's share below x.

    By Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 7.1.26.
    """
    if x.dtype != mx.float32:
        return mlx_gelu(x)
    values: Array = np.asarray(x).reshape(-1)
    out = np.empty_like(values)
    for part in parts(values.size):
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
