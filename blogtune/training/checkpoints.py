"""Checkpoints from which a stopped training goes on to the same bytes.

    checkpoints/3f0a5c1e9b7d2468/     by the hash of all that must match
        fingerprint.json              of what: model, data, parameters, engine, each hashed
        lock                          held by the training that writes here
        0000040/                      what was known after iteration 40
            adapters.safetensors, adapter_config.json   for mlx_lm.generate --adapter-path
            state.safetensors         adapter, optimizer, best adapter so far; curve and losses
            state.sha256              its digest, without which nothing goes on from it

They are not among the stage's outputs, which DVC deletes before it starts the stage. Data order and
randomness need no place here: both follow from the seed and the iteration.
"""

import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import mlx.core as mx

from blogtune.common.errors import UserError
from blogtune.common.files import atomic_folder, sha256, write_json
from blogtune.common.progress import say
from blogtune.training.lora import write_adapter
from blogtune.training.params import LoraParams

Arrays = dict[str, mx.array]
# Hexadecimal digits of a fingerprint in a folder's name.
DIGITS = 16
LOCK, FINGERPRINT = "lock", "fingerprint.json"
STATE, DIGEST = "state.safetensors", "state.sha256"


@dataclass(frozen=True)
class State:
    """All that a training knows after an iteration, beside what follows from its parameters."""

    iteration: int
    progress: Mapping[str, Any]
    adapter: Arrays
    optimizer: Arrays
    best: Arrays


class Checkpoints:
    """The checkpoints of one training, held against any other."""

    def __init__(self, folder: Path, lock: IO[str], keep: int) -> None:
        self.folder = folder
        self.lock = lock
        self.keep = keep

    def latest(self) -> bytes:
        """The newest state that is as `save` wrote it, for `unpack`; nothing where there is none.

        One that is not is told and deleted: an older one is as good, only longer ago.
        """
        for path in reversed(_iterations(self.folder)):
            packed = _whole(path)
            if packed:
                return packed
            say(f"{path}: damaged since it was written; passed over")
            shutil.rmtree(path, ignore_errors=True)
        return b""

    def save(self, state: State, lora: LoraParams, keys: list[str]) -> None:
        """Write the state, whole or not at all, and delete all but the last `keep`.

        Nothing is written over: what an iteration left is the same each time.
        """
        path = self.folder / f"{state.iteration:07d}"
        if path in _iterations(self.folder):
            return
        with atomic_folder(path) as folder:
            write_adapter(folder, state.adapter, lora, keys)
            _pack(state, folder / STATE)
            (folder / DIGEST).write_text(sha256(folder / STATE), encoding="utf-8")
        for old in _iterations(self.folder)[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)

    def remove(self) -> None:
        """Delete them: the training is finished, and its results are written."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.lock.close()

    def release(self) -> None:
        """Let another training hold them: this one ends without having finished."""
        if not _iterations(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)
        self.lock.close()


def checkpoints_folder() -> Path:
    """Where they lie: in the main working folder, which DVC names to what it runs in a copy."""
    return Path(os.environ.get("DVC_ROOT") or ".") / "checkpoints"


def open_checkpoints(root: Path, fingerprint: Mapping[str, str], keep: int) -> Checkpoints:
    """Hold the folder of this fingerprint under `root`, made where it is not there.

    Raises UserError while another training holds it.
    """
    name = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()[:DIGITS]
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / LOCK).open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        who = lock.read().strip()
        lock.close()
        raise UserError(
            f"the same training runs already (process {who})",
            where=folder,
            remedy="wait for it, or end it",
        ) from error
    if not (folder / LOCK).exists():
        # It was finished, and its folder deleted, between the two lines above.
        lock.close()
        return open_checkpoints(root, fingerprint, keep)
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    write_json(folder / FINGERPRINT, fingerprint)
    return Checkpoints(folder, lock, keep)


def others(root: Path, fingerprint: Mapping[str, str]) -> list[str]:
    """One line for each interrupted training under `root` that is another one, and why."""
    lines: list[str] = []
    for file in sorted(root.glob(f"*/{FINGERPRINT}")):
        saved = _iterations(file.parent)
        try:
            theirs = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            # It is done just now, and deletes what it had; or it cannot be read.
            continue
        known: dict[str, Any] = theirs if isinstance(theirs, dict) else {}
        differing = [part for part in fingerprint if known.get(part) != fingerprint[part]]
        if saved and differing:
            lines.append(
                f"{file.parent}: not used, it differs in {' and '.join(differing)} (iteration "
                f"{int(saved[-1].name)}); delete it, or go back to them to go on from it"
            )
    return lines


def fingerprint(
    model: Path, examples: Sequence[object], parameters: str, sources: Sequence[Path]
) -> dict[str, str]:
    """Hashes of all that a training's bytes follow from, by what they are of.

    model: the base model's folder; examples: training and validation examples, in order;
    parameters: as text; sources: the engine's own files, with which the libraries' versions count.
    """
    versions = [f"{name} {version(name)}" for name in ("mlx", "mlx-lm", "numpy")]
    files = sorted(file for file in model.iterdir() if file.suffix in (".safetensors", ".json"))
    return {
        "model": _digest(sha256(file).encode() for file in files),
        "data": _digest(repr(example).encode() for example in examples),
        "parameters": _digest([parameters.encode()]),
        "engine": _digest([*(path.read_bytes() for path in sources), repr(versions).encode()]),
    }


def unpack(packed: bytes) -> State:
    """The state that `Checkpoints.latest` returned as bytes."""
    loaded: Any = mx.load(io.BytesIO(packed), format="safetensors", return_metadata=True)
    arrays, metadata = loaded
    parts: dict[str, Arrays] = {"adapter": {}, "optimizer": {}, "best": {}}
    for name, array in arrays.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = array
    known = json.loads(metadata["state"])
    return State(known["iteration"], known["progress"], **parts)


def _pack(state: State, file: Path) -> None:
    parts = {"adapter": state.adapter, "optimizer": state.optimizer, "best": state.best}
    arrays = {
        f"{part}.{name}": array for part, those in parts.items() for name, array in those.items()
    }
    # Python writes a float so that it reads back as the same one.
    known = json.dumps({"iteration": state.iteration, "progress": state.progress})
    mx.save_safetensors(str(file), arrays, {"state": known})


def _whole(path: Path) -> bytes:
    """The state, or nothing where it is not what its digest says."""
    try:
        packed, digest = (path / STATE).read_bytes(), (path / DIGEST).read_bytes()
    except OSError:
        return b""
    return packed if hashlib.sha256(packed).hexdigest().encode() == digest else b""


def _iterations(folder: Path) -> list[Path]:
    """The whole checkpoints, oldest first: of one half deleted the state may be gone."""
    return sorted(file.parent for file in folder.glob(f"*/{STATE}") if file.parent.name.isdigit())


def _digest(parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()
