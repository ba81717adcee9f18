"""The machine's cores and memory: how many, and what BLAS and malloc make of them."""

import ctypes
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from blogtune.common import blas

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def usable_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_blas_threads(count: int) -> None:
    """Have each matrix product computed by so many threads, where the fast BLAS is in place."""
    _openblas("set_num_threads", count)


@contextmanager
def blas_threads(count: int) -> Generator[None]:
    """So many threads while the block runs."""
    before = _openblas("get_num_threads")
    set_blas_threads(count)
    try:
        yield
    finally:
        set_blas_threads(before or count)


def keep_freed_memory() -> None:
    """Have malloc keep what is freed: every batch asks for the same megabytes again.

    From the system they come page by page: a fifth of a training step's time. Only glibc knows
    these settings (malloc.h); elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and sys.platform == "linux":
        for setting, value in ((M_TRIM_THRESHOLD, -1), (M_MMAP_MAX, 0), (M_ARENA_MAX, 1)):
            mallopt(setting, value)


def _openblas(name: str, *arguments: int) -> int | None:
    """Call a function of the fast BLAS; None where it is not loaded."""
    if not blas.LOADED:
        return None
    function: Any = getattr(blas.LOADED[0], f"scipy_openblas_{name}", None)
    return function(*arguments) if function is not None else None
