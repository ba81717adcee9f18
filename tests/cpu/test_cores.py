import ctypes
import os

import pytest

from blogtune.common import blas
from blogtune.cpu.cores import (
    blas_threads,
    keep_freed_memory,
    set_blas_threads,
    usable_cores,
)


def threads() -> int:
    return int(ctypes.CDLL(str(blas.LIBRARY)).scipy_openblas_get_num_threads())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no such setting here")
def test_only_cores_that_this_process_may_use_count() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cores() == len(before)


@pytest.mark.skipif(not blas.LIBRARY.exists(), reason="no OpenBLAS in place")
def test_blas_threads_are_as_before_behind_the_block() -> None:
    before = threads()
    try:
        set_blas_threads(3)
        with blas_threads(1):
            assert threads() == 1
        assert threads() == 3
    finally:
        set_blas_threads(before)


def test_without_the_fast_blas_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "LOADED", [])
    set_blas_threads(1)
    with blas_threads(1):
        pass


def test_keeping_memory_twice_does_no_harm() -> None:
    keep_freed_memory()
    keep_freed_memory()
    assert bytes(100_000_000)[-1] == 0
