"""Dropout (Srivastava et al. 2014) with numpy's random numbers, where MLX's took 6% of a step."""

from typing import Any

import mlx.core as mx
import numpy as np

LEVELS = 1 << 16


def dropout(layer: Any, x: mx.array) -> mx.array:
    """As `nn.Dropout.__call__`; the seed follows from MLX's random state.

    The numbers have 16 bits each: the share kept is a multiple of 1/65,536, and the scale is made
    for it.
    """
    kept = max(1, round(layer._p_1 * LEVELS))
    if kept == LEVELS or not layer.training:
        return x
    seed = np.asarray(mx.random.randint(0, 1 << 31, (4,), mx.uint32))
    numbers = np.random.SFC64(seed).random_raw(-(-x.size // 4)).view(np.uint16)
    factors = (numbers[: x.size] < kept) * np.float32(LEVELS / kept)
    return x * mx.array(factors).reshape(x.shape).astype(x.dtype)
