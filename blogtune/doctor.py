"""What this machine has, what the present params.yaml needs, and what to do about each lack."""

import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution, version
from pathlib import Path

import mlx.core as mx
import psutil

from blogtune.errors import UserError
from blogtune.models.ollama import OllamaModel
from blogtune.runtime import device
from blogtune.settings import Settings, obstacles

GIB = 2**30
PACKAGES = ("mlx", "mlx-lm", "dvc", "datasets", "pandas", "ollama", "huggingface_hub", "click")
OLDEST_GLIBC = (2, 35)
UNKNOWN = "the need is unknown before the model is fetched"
# What the embedded default was measured to run on; newer ones may lack wheels.
PYTHONS = ((3, 11), (3, 13))


@dataclass(frozen=True)
class Finding:
    """One line of the report; `remedy` is empty where nothing is lacking."""

    name: str
    value: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at the machine, one finding after the other."""
    yield _python()
    yield from _glibc()
    yield Finding("versions", ", ".join(f"{name} {version(name)}" for name in PACKAGES))
    yield _device()
    yield _blas()
    yield _threads()
    yield _memory(settings)
    yield _disk(settings)
    yield from _ollama(settings)
    yield _hub_token(settings)
    for obstacle in obstacles(settings):
        key, _, remedy = obstacle.partition(": ")
        yield Finding(key, "cannot run yet", remedy)


def _python() -> Finding:
    found = sys.version_info[:2]
    value = platform.python_version()
    if found < PYTHONS[0]:
        return Finding("Python", value, "too old: make PYTHON=python3.12 setup")
    if found > PYTHONS[1]:
        return Finding("Python", value, "untested; if setup fails: make PYTHON=python3.13 setup")
    return Finding("Python", value)


def _glibc() -> Iterator[Finding]:
    name, found = platform.libc_ver()
    if name == "glibc":
        old = tuple(map(int, found.split(".")[:2])) < OLDEST_GLIBC
        remedy = "MLX needs 2.35: Ubuntu 22.04, Debian 12, Fedora 36 or newer" if old else ""
        yield Finding("glibc", found, remedy)


def _device() -> Finding:
    return Finding("device", f"{device.describe()} ({platform.machine()})")


def gflops() -> float:
    """Speed of float32 matrix products of the size that training has, in GFLOP/s."""
    a, b = mx.random.normal((1024, 1024)), mx.random.normal((1024, 1024))
    mx.eval(a @ b)
    start = time.perf_counter()
    repeats = 0
    while repeats == 0 or time.perf_counter() - start < 0.5:
        mx.eval(a @ b)
        repeats += 1
    return 2 * 1024**3 * repeats / (time.perf_counter() - start) / 1e9


def _blas() -> Finding:
    speed = gflops()
    slow = device.on_cpu() and speed < 20
    remedy = "MLX uses its reference BLAS: rm .venv/.ready; make setup" if slow else ""
    return Finding("matrix product", f"{speed:.0f} GFLOP/s in float32", remedy)


def _threads() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit = os.environ.get("OPENBLAS_NUM_THREADS")
    return Finding("threads", f"{limit or usable} of {os.cpu_count()} cores")


def _memory(settings: Settings) -> Finding:
    # The parity check holds two models in float32, twice the stored half floats each.
    free = psutil.virtual_memory().available
    return _room("memory", free, settings, "lower train.batch_pairs, or close other programs")


def _disk(settings: Settings) -> Finding:
    # Base and fused model, each in the workspace and in DVC's cache.
    free = shutil.disk_usage(Path.cwd()).free
    return _room("disk", free, settings, "free some, or move DVC's cache: dvc cache dir --local")


def _room(name: str, free: int, settings: Settings, remedy: str) -> Finding:
    """Compare what is free with four times the base model and a GiB for all else, in bytes."""
    base = _model_bytes(settings)
    if base is None:
        return Finding(name, f"{free / GIB:.1f} GiB free; {UNKNOWN}")
    need = 4 * base + GIB
    text = f"{free / GIB:.1f} GiB free, about {need / GIB:.1f} needed"
    return Finding(name, text, remedy if free < need else "")


def _model_bytes(settings: Settings) -> int | None:
    """Bytes of the base model in half floats, None where nobody can know yet."""
    files = list(Path("models/base").glob("*.safetensors"))
    if files:
        return sum(file.stat().st_size for file in files)
    if settings.model.scheme != "package":
        return None
    name, _, file = settings.model.name.partition("/")
    size = Path(str(distribution(name).locate_file(file))).stat().st_size
    # A 4-bit GGUF (4.5 to 5 bits a weight) becomes 16 bits.
    return int(size * 16 / 4.5)


def _ollama(settings: Settings) -> Iterator[Finding]:
    judges = [judge for judge in settings.judges().values() if judge.kind == "ollama"]
    if not judges:
        yield Finding("Ollama", "not needed")
    for judge in judges:
        model = OllamaModel(judge.model.name, judge.host, timeout_seconds=2)
        try:
            digest = model.digest()
        except UserError as error:
            value, _, remedy = str(error).partition("; ")
            yield Finding("Ollama", value, remedy or f"see to the server at {model.address}")
            continue
        if digest is None:
            pull = f"run `ollama pull {model.name}`, or set pull: true"
            yield Finding("Ollama", f"no {model.name} at {model.address}", pull)
        else:
            changed = judge.model.revision not in (None, digest)
            remedy = "not the one in params.yaml: `make pin` takes it" if changed else ""
            yield Finding("Ollama", f"{model.name} at {model.address}, {digest[:12]}", remedy)


def _hub_token(settings: Settings) -> Finding:
    from huggingface_hub import get_token

    hub = any(model.scheme == "hub" for model in settings.models().values())
    if get_token():
        return Finding("hub token", "there")
    return Finding("hub token", "none; needed for gated models only" if hub else "none; not needed")
