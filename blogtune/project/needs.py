"""What a run needs before it starts: bytes from the hub, disk over all copies, memory.

Estimates, from the sizes that the hub lists, or from what lies here already. What a step of the
training takes, and how long it will be, the training itself tells before its first step.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from blogtune.answering.caches import GROWTH, cache_bytes
from blogtune.common.errors import UserError
from blogtune.common.progress import size_text
from blogtune.common.sources import DatasetParams, ModelParams
from blogtune.fetching import hub, repositories
from blogtune.fetching.fetch import read_receipt
from blogtune.fetching.hub import HubFile, Repository, count_text
from blogtune.project.settings import Settings
from blogtune.runtime.device import device, free_memory
from blogtune.runtime.workers import how_many

# Adapter, answers, the training's checkpoints, and what other programs write meanwhile.
ALL_ELSE = 2**30
# A question with what a chat template says around it; the data may not be here yet.
PROMPT_TOKENS = 200
FOLDERS = {
    "model": Path("models/base"),
    "judge.model": Path("models/judge"),
    "judge.second.model": Path("models/second"),
    "data.fetch": Path("data/fetched"),
}


@dataclass(frozen=True)
class Download:
    """A source on the hub that is not in its folder yet; `missing` bytes of it are nowhere here."""

    key: str
    repository: Repository
    files: list[HubFile]
    missing: int

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Weights:
    """A model's weights: bytes as they are stored, their number, and whether few bits hold each.

    `a_token` is how many numbers the model keeps of each token of a text; 0 where nobody knows.
    """

    stored: int
    number: float
    quantized: bool
    a_token: int = 0

    def merged(self) -> int:
        """Bytes of the fused model's files; those of few bits become half floats."""
        return int(2 * self.number) if self.quantized else self.stored

    def fusing(self) -> int:
        """Bytes of the larger of the adapted and the fused model, which `fuse` reads in turn."""
        return int(4 * self.number) if device().dtype else max(self.stored, self.merged())

    def answering(self, settings: Settings) -> int:
        """Bytes of all processes that answer, with the caches of as many answers as must fit."""
        asked = settings.answer.batch_questions
        step = GROWTH * self.a_token * (4 if device().dtype else 2)
        count = 1 if asked == "auto" else asked
        caches = cache_bytes(step, count, PROMPT_TOKENS, settings.answer.max_tokens)
        processes = how_many(settings.runtime, self.stored)
        return processes * (self.fusing() + caches)


@dataclass(frozen=True)
class Needs:
    """What these settings need here, in bytes; `weights` is None where nobody can know yet."""

    downloads: list[Download]
    weights: Weights | None
    settings: Settings

    def parts_of_disk(self) -> dict[str, int]:
        """What will be written, by where it will lie."""
        merged = self.weights.merged() if self.weights else 0
        fetched = sum(download.bytes for download in self.downloads)
        return {
            ".dvc/hub": sum(download.missing for download in self.downloads),
            "models and data": fetched,
            "models/fused": merged,
            "DVC's cache": fetched + merged,
            "other files": ALL_ELSE,
        }

    def disk(self) -> int:
        return sum(self.parts_of_disk().values())

    def memory(self) -> int:
        """What the hungrier of `fuse` and `answer` takes."""
        if self.weights is None:
            return ALL_ELSE
        return max(self.weights.fusing(), self.weights.answering(self.settings)) + ALL_ELSE

    def lines(self) -> Iterator[str]:
        """Tell it, with what this machine has."""
        for download in self.downloads:
            count, size = count_text(download.files), size_text(download.bytes)
            here = download.bytes - download.missing
            also = f", {size_text(here)} of it here already" if here else ""
            source = download.repository.source
            yield f"to fetch: {source} ({download.key}), {count}, {size}{also}"
        parts = ", ".join(f"{n} {size_text(s)}" for n, s in self.parts_of_disk().items() if s)
        yield f"disk: {size_text(self.disk())} needed ({parts}), {size_text(_disk())} free"
        memory, free = self.memory(), free_memory()
        lack = "; that may not be enough" if memory > free else ""
        yield f"memory: about {size_text(memory)} needed, {size_text(free)} free{lack}"
        yield "time: the download depends on your connection; train tells its own before it starts"

    def check_disk(self) -> None:
        """Raise UserError where the disk has not room for all copies."""
        if self.disk() > _disk():
            raise UserError(
                f"{size_text(self.disk())} needed, {size_text(_disk())} free",
                where="disk",
                remedy="free some space, or move DVC's cache: dvc cache dir --local <folder>",
            )


def needs_of(settings: Settings) -> Needs:
    """Ask the hub what is listed there, and look at what is here.

    Raises UserError where the hub cannot be asked.
    """
    downloads = [
        _download(key, source)
        for key, source in settings.sources().items()
        if source.scheme == "hub" and not _is_here(FOLDERS[key], source)
    ]
    of_base = (download for download in downloads if download.key == "model")
    listed = next(of_base, None)
    weights = _listed_weights(listed) if listed else _weights(settings.model)
    return Needs(downloads, weights, settings)


def _download(key: str, source: ModelParams | DatasetParams) -> Download:
    if isinstance(source, DatasetParams):
        repository = repositories.of_data(source)
        files = repositories.data_files(repository)
    else:
        repository = repositories.of_model(source)
        files = repositories.model_files(repository)
    return Download(key, repository, files, hub.to_fetch(files))


def _is_here(folder: Path, source: ModelParams | DatasetParams) -> bool:
    receipt = read_receipt(folder)
    return (receipt.get("source"), receipt.get("revision")) == (source.source, source.revision)


def _listed_weights(download: Download) -> Weights:
    stored = sum(file.size for file in download.files if file.path.endswith(".safetensors"))
    config = next(file for file in download.files if file.path == "config.json")
    return _counted(stored, json.loads(hub.read(download.repository, config)))


def _weights(model: ModelParams) -> Weights | None:
    """Of a model that is in its folder, a package or a path."""
    base = FOLDERS["model"]
    if model.scheme == "package" and not _is_here(base, model):
        name, _, rest = model.name.partition("/")
        try:
            path = Path(str(distribution(name).locate_file(rest)))
        except PackageNotFoundError:
            return None
    else:
        path = base if _is_here(base, model) else Path(model.name)
    if path.is_file():
        # A GGUF of 4 bits (4.5 to 5 a weight) becomes 16 bits.
        halves = int(path.stat().st_size * 16 / 4.5)
        return Weights(halves, halves / 2, quantized=False)
    if not (path / "config.json").is_file():
        return None
    stored = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    return _counted(stored, json.loads((path / "config.json").read_text(encoding="utf-8")))


def _counted(stored: int, config: dict[str, Any]) -> Weights:
    """Count the weights in `stored` bytes by what config.json says of their type."""
    quantization = config.get("quantization")
    if isinstance(quantization, dict):
        # MLX keeps a scale and an offset, of 16 bits each, for every group.
        bits = quantization["bits"] + 32 / quantization["group_size"]
        return Weights(stored, stored * 8 / bits, quantized=True, a_token=_cached(config))
    wide = config.get("dtype", config.get("torch_dtype")) == "float32"
    return Weights(stored, stored / (4 if wide else 2), quantized=False, a_token=_cached(config))


def _cached(config: dict[str, Any]) -> int:
    """Keys and values of all layers, for one token."""
    try:
        heads = config["num_attention_heads"]
        size = config.get("head_dim") or config["hidden_size"] // heads
        return 2 * config["num_hidden_layers"] * (config.get("num_key_value_heads") or heads) * size
    except (KeyError, TypeError):
        return 0


def _disk() -> int:
    return shutil.disk_usage(Path.cwd()).free
