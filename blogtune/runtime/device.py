"""Where MLX computes, in which float type, and what makes it fast there."""

from collections.abc import Generator
from contextlib import contextmanager

import mlx.core as mx

from blogtune.common import blas
from blogtune.cpu.cores import keep_freed_memory
from blogtune.cpu.patches import patched
from blogtune.runtime.params import RuntimeParams


def on_cpu() -> bool:
    """Whether MLX's default device is the CPU."""
    return mx.default_device().type == mx.DeviceType.cpu


def compute_dtype(params: RuntimeParams) -> mx.Dtype:
    """The float type to compute in: `auto` is float32 on a CPU, where half types are slow."""
    name = params.dtype
    if name == "auto":
        name = "float32" if on_cpu() else "bfloat16"
    return {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}[name]


def exact_dtype() -> mx.Dtype | None:
    """Of weights that are computed with in float32: None is as stored, for the room they take.

    On a CPU they are fastest as float32 from the start.
    """
    return mx.float32 if on_cpu() else None


@contextmanager
def exact_losses() -> Generator[None]:
    """While the block runs, cross-entropies are exact on a CPU too.

    MLX adds up the exponentials one by one there: of 49,152 the sum is 7e-5 off.
    """
    with patched(cross_entropy=on_cpu()):
        yield


@contextmanager
def fast_math() -> Generator[None]:
    """While the block runs, a CPU computes what it reads with `blogtune.cpu`; a GPU as ever."""
    if not on_cpu():
        yield
        return
    keep_freed_memory()
    with patched(attention=True, swiglu=True, gelu=True):
        yield


def describe() -> str:
    """One phrase for a stage's first line, such as "CPU with OpenBLAS"."""
    if mx.metal.is_available():
        return "Apple GPU"
    if not on_cpu():
        return "CUDA GPU"
    if blas.LOADED:
        return "CPU with OpenBLAS"
    return "CPU with the reference BLAS: slow; `make doctor` tells why"
