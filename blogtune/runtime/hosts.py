"""Processes on several machines: those of a host file, which `mlx.launch` starts."""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import mlx.core as mx
import numpy as np

from blogtune.common import worker
from blogtune.common.errors import UserError
from blogtune.common.files import sha256
from blogtune.runtime.collectives import broadcast

# On all hosts, beside the model and what else a stage reads.
SAME_EVERYWHERE = (Path("params.yaml"), Path("blogtune"), Path("stages"))


def refuse_other_files(inputs: Sequence[Path], group: mx.distributed.Group) -> None:
    """Raise UserError in all processes where one has not the files that the first has."""
    paths = [*SAME_EVERYWHERE, *inputs]
    own = [_digest(path) for path in paths]
    firsts = json.loads(broadcast(json.dumps(own).encode(), group))
    others = mx.array([mine != theirs for mine, theirs in zip(own, firsts, strict=True)])
    gathered = mx.distributed.all_gather(others[None], group=group, stream=mx.cpu)
    for rank, path in np.argwhere(np.asarray(gathered)).tolist():
        raise UserError(
            f"on host {rank} of runtime.processes it is not what it is on the first (0)",
            where=paths[path],
            remedy="give all of them one shared folder, or copy it there",
        )


def _digest(path: Path) -> str:
    """Of a file, or of all in a folder with their names; of nothing where nothing is."""
    files = [path] if path.is_file() else sorted(path.rglob("*.*"))
    digest = hashlib.sha256()
    for file in files:
        if file.is_file() and file.suffix != ".pyc":
            digest.update(f"{file.relative_to(path)} {sha256(file)}\n".encode())
    return digest.hexdigest()


def launch(hosts: Path, command: Sequence[str]) -> NoReturn:
    """Run the stage in a process on each of the hosts, the first being here, and end as that did.

    `mlx.launch` says nothing of how they ended, so the first leaves a file behind.
    """
    try:
        read = json.loads(hosts.read_text(encoding="utf-8"))
        first = (read["hosts"] if isinstance(read, dict) else read)[0]["ssh"]
    except FileNotFoundError as error:
        raise UserError(f"{hosts}: no such host file", where="runtime.processes") from error
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(
            "no host file as `mlx.distributed_config` writes it", where=hosts
        ) from error
    if first != "127.0.0.1":
        raise UserError("the first host must be this machine, with ssh: 127.0.0.1", where=hosts)
    with tempfile.TemporaryDirectory() as folder:
        done = Path(folder) / "done"
        launch = [Path(sys.executable).parent / "mlx.launch", "--hostfile", hosts]
        options = ["--backend", "ring", "--env", f"{worker.DONE}={done}"]
        subprocess.run([*launch, *options, sys.executable, "-m", *command], check=False)
        sys.exit(0 if done.exists() else 1)
