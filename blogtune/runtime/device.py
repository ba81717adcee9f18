"""Where MLX computes, and all that follows from it: nothing else asks which device it is."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx

from blogtune.common import blas
from blogtune.cpu.cores import keep_freed_memory, usable_cores
from blogtune.cpu.patches import patched
from blogtune.runtime.params import RuntimeParams


@dataclass(frozen=True)
class Device:
    """MLX's default device.

    name: for a stage's first line; dtype: what `runtime.dtype: auto` is; exact_dtype: of weights
    that are computed with in float32, None being as stored; cores: how many of our own processes or
    threads it is worth; is_cpu: whether `blogtune.cpu` is for it.
    """

    name: str
    dtype: str
    exact_dtype: mx.Dtype | None
    cores: int
    is_cpu: bool


def device() -> Device:
    """The device that MLX computes on now."""
    if mx.default_device().type == mx.DeviceType.cpu:
        slow = "CPU with the reference BLAS: slow; `make doctor` tells why"
        name = "CPU with OpenBLAS" if blas.LOADED else slow
        # Half types are slow there, and weights fastest as float32 from the start.
        return Device(name, "float32", mx.float32, usable_cores(), is_cpu=True)
    name = "Apple GPU" if mx.metal.is_available() else "CUDA GPU"
    return Device(name, "bfloat16", None, 1, is_cpu=False)


def compute_dtype(params: RuntimeParams) -> mx.Dtype:
    """The float type to compute in."""
    name = device().dtype if params.dtype == "auto" else params.dtype
    return {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}[name]


@contextmanager
def exact_losses() -> Generator[None]:
    """While the block runs, cross-entropies are exact on a CPU too.

    MLX adds up the exponentials one by one there: of 49,152 the sum is 7e-5 off.
    """
    with patched(cross_entropy=device().is_cpu):
        yield


@contextmanager
def fast_math() -> Generator[None]:
    """While the block runs, a CPU computes what it reads with `blogtune.cpu`; a GPU as ever."""
    is_cpu = device().is_cpu
    if is_cpu:
        keep_freed_memory()
    with patched(attention=is_cpu, swiglu=is_cpu, gelu=is_cpu):
        yield
