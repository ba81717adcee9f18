"""Takes mlx-lm's exponentials to the host, on a CPU (see `exponentials`).

`use` puts functions in place of mlx-lm's that do the same with numpy's exponentials, for
float32; every other type, and what they do not know, goes to the ones they replace. Nothing of a
network's structure is written a second time, and neither Metal nor CUDA comes here.
"""

import ctypes
import sys
from typing import cast

import mlx.core as mx
from mlx_lm.models.activations import swiglu as mlx_swiglu

from blogtune.runtime import exponentials

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def use() -> None:
    """Put the functions in place in all of mlx-lm's models imported so far; twice does nothing."""
    _keep_freed_memory()
    mx.fast.scaled_dot_product_attention = exponentials.attention
    for name, module in list(sys.modules.items()):
        if name.startswith("mlx_lm.models.") and getattr(module, "swiglu", None) is mlx_swiglu:
            vars(module)["swiglu"] = swiglu


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """silu(gate) * x, of any shape."""
    if gate.dtype != mx.float32 or x.dtype != mx.float32:
        return cast("mx.array", mlx_swiglu(gate, x))
    return exponentials.swiglu(gate, x)


def _keep_freed_memory() -> None:
    """Have malloc keep what is freed: every step asks for the same gigabytes again.

    From the system they come page by page: a fifth of a step's time. Only glibc knows these
    settings (malloc.h); elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and sys.platform == "linux":
        for setting, value in ((M_TRIM_THRESHOLD, -1), (M_MMAP_MAX, 0), (M_ARENA_MAX, 1)):
            mallopt(setting, value)
