"""Takes mlx-lm's exponentials to the host, on a CPU (see `exponentials`), and dropout's randomness.

`use` puts functions in place of mlx-lm's that do the same with numpy's exponentials and random
numbers, for float32; every other type, and what they do not know, goes to the ones they replace.
Nothing of a network's structure is written a second time, and neither Metal nor CUDA comes here.
"""

import sys
from typing import Any, cast

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx_lm.models.activations import swiglu as mlx_swiglu

from blogtune.runtime import exponentials
from blogtune.runtime.cores import keep_freed_memory

LEVELS = 1 << 16


def use() -> None:
    """Put the functions in place in all of mlx-lm's models imported so far; twice does nothing."""
    keep_freed_memory()
    mx.fast.scaled_dot_product_attention = exponentials.attention
    setattr(nn.Dropout, "__call__", dropout)  # noqa: B010 - it is no method to the type checker
    for name, module in list(sys.modules.items()):
        if name.startswith("mlx_lm.models.") and getattr(module, "swiglu", None) is mlx_swiglu:
            vars(module)["swiglu"] = swiglu


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """silu(gate) * x, of any shape."""
    if gate.dtype != mx.float32 or x.dtype != mx.float32:
        return cast("mx.array", mlx_swiglu(gate, x))
    return exponentials.swiglu(gate, x)


def dropout(layer: Any, x: mx.array) -> mx.array:
    """As MLX's, with numpy's random numbers, whose seed follows from MLX's random state.

    They have 16 bits each: the share kept is a multiple of 1/65,536, and the scale is made for it.
    """
    kept = round(layer._p_1 * LEVELS)
    if kept == LEVELS or not layer.training:
        return x
    seed = np.asarray(mx.random.randint(0, 1 << 31, (4,), mx.uint32))
    numbers = np.random.SFC64(seed).random_raw(-(-x.size // 4)).view(np.uint16)
    factors = (numbers[: x.size] < kept) * np.float32(LEVELS / kept)
    return x * mx.array(factors).reshape(x.shape).astype(x.dtype)
