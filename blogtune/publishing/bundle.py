"""The files that go to the hub, with their hashes."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blogtune.common.model_files import is_of_model
from blogtune.common.progress import progress
from blogtune.exporting.weights import FUSED
from blogtune.publishing.facts import ADAPTER, GGUF
from blogtune.publishing.params import PublishParams

CARD = "README.md"
# In mlx-lm's format.
ADAPTER_FILES = ("adapters.safetensors", "adapter_config.json")


@dataclass(frozen=True)
class Entry:
    """A file of the repository: its path there, where its content comes from, and its hashes."""

    path: str
    content: Path | bytes
    size: int
    sha256: str
    md5: str

    def git_name(self) -> str:
        """The name that git gives the content: sha1 of "blob <size>", a zero byte, the content."""
        content = self.content if isinstance(self.content, bytes) else self.content.read_bytes()
        head = b"blob %d\0" % len(content)
        return hashlib.sha1(head + content, usedforsecurity=False).hexdigest()


def made_entry(path: str, content: bytes) -> Entry:
    """A file of the repository that lies nowhere on the disk, as the card does."""
    md5 = hashlib.md5(content, usedforsecurity=False)
    sha256 = hashlib.sha256(content)
    return Entry(path, content, len(content), sha256.hexdigest(), md5.hexdigest())


def folders(params: PublishParams) -> dict[Path, str]:
    """What is published of models/, each with its folder in the repository."""
    return {FUSED: "", **({ADAPTER: "adapter/"} if params.adapter else {})}


def read_entries(params: PublishParams) -> dict[Path, list[Entry]]:
    """The files to publish by the folder they lie in, every one read once, and no others.

    What they say is what dvc.lock names, or nothing is published.
    """
    places = [
        (folder, f"{inside}{file.relative_to(folder).as_posix()}", file)
        for folder, inside in folders(params).items()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and _is_published(file.relative_to(folder).as_posix())
    ]
    if params.gguf and GGUF.is_file():
        places.append((GGUF.parent, GGUF.name, GGUF))
    entries: dict[Path, list[Entry]] = {}
    for folder, path, file in progress(places, desc="reading what is published", unit="files"):
        entries.setdefault(folder, []).append(_read(path, file))
    return entries


def _is_published(path: str) -> bool:
    return path in ADAPTER_FILES or is_of_model(path)


def dvc_name(entries: list[Entry], inside: str) -> str:
    """The name that dvc.lock gives a folder with these files: md5 of its sorted listing."""
    listing = sorted((entry.path.removeprefix(inside), entry.md5) for entry in entries)
    text = json.dumps([{"md5": md5, "relpath": path} for path, md5 in listing])
    return f"{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}.dir"


def _read(path: str, file: Path) -> Entry:
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    for piece in _pieces(file):
        sha256.update(piece)
        md5.update(piece)
        size += len(piece)
    return Entry(path, file, size, sha256.hexdigest(), md5.hexdigest())


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while piece := stream.read(1 << 20):
            yield piece
