"""Several processes that share a stage's work: one for each core, each with one BLAS thread.

On a CPU MLX computes everything but matrix products on one thread, and two BLAS threads wait for
each other at every product, the longer the busier the machine. Two processes wait once a step.
They are joined by MLX's ring over loopback. Processes on several machines are those of a host file
as `mlx.launch` reads it, which starts them; under it the group is the one that it made.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import mlx.core as mx
import psutil

from blogtune.common import worker
from blogtune.common.errors import UserError
from blogtune.cpu.cores import set_blas_threads, usable_cores
from blogtune.runtime.device import device
from blogtune.runtime.hosts import launch, refuse_other_files
from blogtune.runtime.params import RuntimeParams

MOST = 4
# Bytes a process needs for each stored byte of a half-float model: float32 weights and as much
# again for what it computes.
MEMORY_FACTOR = 4


def how_many(params: RuntimeParams, stored: int) -> int:
    """The number of processes: `runtime.processes`, or as many as cores and memory are good for.

    `stored` are the bytes of the model's weights.
    """
    if isinstance(params.processes, int):
        return params.processes
    fit = psutil.virtual_memory().total // max(1, MEMORY_FACTOR * stored)
    return max(1, min(MOST, device().cores, fit))


@contextmanager
def worker_group(
    params: RuntimeParams, model: Path, command: Sequence[str], inputs: Sequence[Path] = ()
) -> Generator[mx.distributed.Group]:
    """Run the block in all processes at once; each learns its rank from the group.

    `command` is the module and its arguments with which the others are started
    (`python -m ...`); they end with the block. Raises UserError when one of them fails. Does not
    return where `runtime.processes` is a host file: then the processes started do all the work, and
    UserError is raised where one of them has other sources, parameters, model or `inputs`.
    """
    if worker.is_started():
        _leave_stopping_to_the_parent()
        group = mx.distributed.init()
        if worker.PARENT not in os.environ:
            refuse_other_files([model, *inputs], group)
        yield group
        return
    if isinstance(params.processes, str) and params.processes != "auto":
        launch(Path(params.processes), command)
    count = how_many(params, sum(file.stat().st_size for file in model.glob("*.safetensors")))
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        set_blas_threads(max(1, usable_cores() // count))
    if count == 1:
        yield mx.distributed.init(strict=False)
        return
    with ExitStack() as stack:
        hosts = stack.enter_context(_loopback_ports(count))
        said = stack.enter_context(tempfile.TemporaryFile())
        others = list[subprocess.Popen[bytes]]()
        stack.push(partial(_end, others))
        os.environ.update({"MLX_RANK": "0", "MLX_HOSTFILE": hosts})
        try:
            with _not_waiting_for_the_ended():
                others += (_start(command, rank, hosts, count, said) for rank in range(1, count))
                group = mx.distributed.init(strict=True, backend="ring")
            yield group
        except RuntimeError as error:
            if "[ring]" not in str(error):
                raise
            raise UserError(f"a process of this stage ended: {_last_line(said)}") from error
        finally:
            del os.environ["MLX_RANK"], os.environ["MLX_HOSTFILE"]


@contextmanager
def _loopback_ports(count: int) -> Generator[str]:
    """A host file as MLX's ring reads it: a free loopback port for each process."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [[f"127.0.0.1:{each.getsockname()[1]}"] for each in sockets]
    for each in sockets:
        each.close()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(addresses, file)
        file.flush()
        yield file.name


def _start(
    command: Sequence[str], rank: int, hosts: str, count: int, said: IO[bytes]
) -> "subprocess.Popen[bytes]":
    environment = {
        **os.environ,
        "MLX_RANK": str(rank),
        "MLX_HOSTFILE": hosts,
        "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS")
        or str(max(1, usable_cores() // count)),
        worker.PARENT: str(os.getpid()),
    }
    # What the others say, the first says too; it matters when one of them fails alone.
    return subprocess.Popen(
        [sys.executable, "-m", *command], env=environment, stdout=subprocess.DEVNULL, stderr=said
    )


@contextmanager
def _not_waiting_for_the_ended() -> Generator[None]:
    """While the block runs, MLX's waiting for the others fails when one of them ends.

    It holds the interpreter, so that no thread could look after them. The signal for an ended
    process interrupts it, and does so only where it has a handler.
    """

    def noticed(*_: object) -> None:
        pass

    before = signal.signal(signal.SIGCHLD, noticed)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _last_line(said: IO[bytes]) -> str:
    said.seek(0)
    lines = (line.strip() for line in said.read().decode(errors="replace").splitlines())
    return next((line for line in reversed(list(lines)) if line and "[ring]" not in line), "killed")


def _end(
    others: "Sequence[subprocess.Popen[bytes]]", kind: type[BaseException] | None, *_: object
) -> None:
    """Wait for the others to end with the block; not for long where it did not end well."""
    for other in others:
        try:
            other.wait(timeout=5 if kind is None or kind is RuntimeError else 0)
        except subprocess.TimeoutExpired:
            other.kill()
            other.wait()


def _leave_stopping_to_the_parent() -> None:
    """End this process when its parent has ended, however, and not before.

    It would wait for it without end; and the parent, which saves what is done when it is told to
    stop, would wait for this one. Of a host file's processes the parent is `mlx.launch` or ssh, and
    the first, which saves, ends when it misses the others.
    """
    parent = int(os.environ.get(worker.PARENT, "0"))
    if worker.of_host_file() and not worker.is_first():
        parent = os.getppid()
    if not parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
