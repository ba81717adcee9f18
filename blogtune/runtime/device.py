"""Where MLX computes, and all that follows from it: nothing else asks which device it is."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx
import psutil

from blogtune.common import blas
from blogtune.cpu.cores import keep_freed_memory, usable_cores
from blogtune.cpu.patches import patched
from blogtune.runtime.params import RuntimeParams


@dataclass(frozen=True)
class Device:
    """MLX's default device.

    name: for a stage's first line; dtype: what `runtime.dtype: auto` makes of weights, None being
    as they are stored; cores: how many of our own processes or threads it is worth; padding: what
    lengths are multiples of; is_cpu: whether `blogtune.cpu` is for it.
    """

    name: str
    dtype: mx.Dtype | None
    cores: int
    padding: int
    is_cpu: bool


def device() -> Device:
    """The device that MLX computes on now."""
    if mx.default_device().type == mx.DeviceType.cpu:
        slow = "CPU with the reference BLAS: slow; `make doctor` tells why"
        name = "CPU with OpenBLAS" if blas.LOADED else slow
        # Half types are slow there, and weights fastest as float32 from the start.
        return Device(name, mx.float32, usable_cores(), 1, is_cpu=True)
    name = "Apple GPU" if mx.metal.is_available() else "CUDA GPU"
    return Device(name, None, 1, 32, is_cpu=False)


def compute_dtype(params: RuntimeParams) -> mx.Dtype | None:
    """The float type to compute in; None: as the weights are stored."""
    if params.dtype == "auto":
        return device().dtype
    return {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}[params.dtype]


def free_memory() -> int:
    """Bytes that arrays may still take where MLX computes.

    Of an Apple GPU what Metal recommends for one process (recommendedMaxWorkingSetSize), less what
    is held, and no more than the system has left, with which it shares its memory; of a CUDA GPU
    its own; of a CPU the system's. What MLX keeps for reuse counts as free.
    """
    about, reusable = mx.device_info(), mx.get_cache_memory()
    system = psutil.virtual_memory().available + reusable
    if "max_recommended_working_set_size" in about:
        recommended = int(about["max_recommended_working_set_size"]) - mx.get_active_memory()
        return max(0, min(recommended, system))
    return int(about["free_memory"]) + reusable if "free_memory" in about else system


def padded(tokens: int) -> int:
    """The length to which texts of so many tokens are filled up.

    On a GPU a multiple of 32: CUDA compiles or plans for each length that it sees, and keeps that.
    """
    step = device().padding
    return -(-tokens // step) * step


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
