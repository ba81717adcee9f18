"""What this machine has, what the present params.yaml needs, and what to do about each lack."""

import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx

from blogtune.common.blas import LOADED
from blogtune.common.errors import UserError
from blogtune.cpu.cores import usable_cores
from blogtune.judging.params import OneJudge
from blogtune.ollama.client import OllamaModel
from blogtune.project import machine
from blogtune.project.mending import broken
from blogtune.project.needs import needs_of
from blogtune.project.settings import Settings, obstacles
from blogtune.runtime.device import device, free_memory

GIB = 2**30
PACKAGES = ("mlx", "mlx-lm", "dvc", "datasets", "pandas", "ollama", "huggingface_hub", "click")
# The reference BLAS has a few; a fast one stays below only where others take the cores.
FAST_GFLOPS = 20


@dataclass(frozen=True)
class Finding:
    """One line of the report; `remedy` is empty where nothing is lacking."""

    name: str
    value: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at the machine, one finding after the other."""
    yield Finding("Python", f"{platform.python_version()}, {_system()}", machine.obstacle())
    yield Finding("versions", ", ".join(f"{name} {version(name)}" for name in PACKAGES))
    yield _device()
    yield _blas()
    yield _threads()
    yield from _room(settings)
    yield from ollama(settings) or [Finding("Ollama", "not needed")]
    yield _hub_token(settings)
    for each in broken():
        yield Finding(each.where, each.what, each.remedy)
    for each in obstacles(settings):
        yield Finding(each.where, f"cannot run yet: {each.what}", each.remedy)


def _system() -> str:
    """Such as "glibc 2.36" or "macOS 15.1"."""
    mac = platform.mac_ver()[0]
    return f"macOS {mac}" if mac else " ".join(platform.libc_ver())


def _device() -> Finding:
    return Finding("device", f"{device().name} ({platform.machine()})")


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
    name, value = "matrix product", f"{speed:.0f} GFLOP/s in float32"
    if speed >= FAST_GFLOPS or not device().is_cpu:
        return Finding(name, value)
    if LOADED:
        return Finding(name, f"{value}: slow; is the machine busy?")
    return Finding(name, value, "MLX uses its reference BLAS: rm .venv/.ready; make setup")


def _threads() -> Finding:
    limit = os.environ.get("OPENBLAS_NUM_THREADS")
    return Finding("threads", f"{limit or usable_cores()} of {os.cpu_count()} cores")


def _room(settings: Settings) -> Iterator[Finding]:
    """Memory and disk, against what the settings need as far as that can be known."""
    memory, disk = free_memory(), shutil.disk_usage(Path.cwd()).free
    try:
        needs = needs_of(settings)
    except UserError as error:
        yield Finding("memory", f"{memory / GIB:.1f} GiB free; the need is unknown: {error}")
        yield Finding("disk", f"{disk / GIB:.1f} GiB free; the need is unknown")
        return
    less = "lower train.batch_pairs, or close other programs"
    yield _enough("memory", memory, needs.memory(), less)
    yield _enough(
        "disk",
        disk,
        needs.disk(),
        "free some space, or move DVC's cache: dvc cache dir --local <folder>",
    )


def _enough(name: str, free: int, need: int, remedy: str) -> Finding:
    text = f"{free / GIB:.1f} GiB free, about {need / GIB:.1f} needed"
    return Finding(name, text, remedy if free < need else "")


def ollama(settings: Settings) -> list[Finding]:
    """Whether each judge that is an Ollama model can be asked."""
    judges = settings.judges().values()
    return [_on_server(judge) for judge in judges if judge.kind == "ollama"]


def _on_server(judge: OneJudge) -> Finding:
    model = OllamaModel(judge.model.name, judge.host, timeout_seconds=2)
    try:
        digest = model.digest()
    except UserError as error:
        problem = replace(error.problem, remedy="")
        remedy = error.problem.remedy or f"check the server at {model.address}"
        return Finding("Ollama", str(problem), remedy)
    if digest is None:
        pull = f"run `ollama pull {model.name}`, or set pull: true"
        return Finding("Ollama", f"no {model.name} at {model.address}", pull)
    changed = judge.model.revision not in (None, digest)
    remedy = "params.yaml has another digest: `make pin` takes this one" if changed else ""
    return Finding("Ollama", f"{model.name} at {model.address}, {digest[:12]}", remedy)


def _hub_token(settings: Settings) -> Finding:
    from huggingface_hub import get_token

    hub = any(source.scheme == "hub" for source in settings.sources().values())
    if get_token():
        return Finding("hub token", "found")
    return Finding(
        "hub token",
        "none; needed for gated and private repositories" if hub else "none; not needed",
    )
