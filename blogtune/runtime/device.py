"""Where MLX computes, and in which float type."""

import mlx.core as mx

from blogtune.common import blas
from blogtune.runtime.params import RuntimeParams


def compute_dtype(params: RuntimeParams) -> mx.Dtype:
    """The float type to compute in: `auto` is float32 on a CPU, where half types are slow."""
    name = params.dtype
    if name == "auto":
        name = "float32" if on_cpu() else "bfloat16"
    return {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}[name]


def on_cpu() -> bool:
    """Whether MLX's default device is the CPU."""
    return mx.default_device().type == mx.DeviceType.cpu


def describe() -> str:
    """One phrase for a stage's first line, such as "CPU with OpenBLAS"."""
    if mx.metal.is_available():
        return "Apple GPU"
    if not on_cpu():
        return "CUDA GPU"
    if blas.LOADED:
        return "CPU with OpenBLAS"
    return "CPU with the reference BLAS: slow; `make doctor` tells why"
