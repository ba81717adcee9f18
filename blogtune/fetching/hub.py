"""The Hugging Face hub: what a repository holds at a commit, and bringing files of it here, proven.

Bytes come through the hub client's own `http_get`, into `.dvc/hub/`, where each file is named by
the digest that the hub lists for it. What is there is not fetched again, a file that broke off goes
on from what is there, and none leaves without its digest. A token is the client's business: it
takes it from HF_TOKEN or from its own file, and nothing here ever holds it.
"""

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blogtune.common.errors import UserError
from blogtune.common.progress import progress, say, size_text
from blogtune.fetching.hub_errors import Kind, readable_errors

CHUNK_BYTES = 2**20
COMMIT = re.compile(r"[0-9a-f]{40}")
DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class HubFile:
    """A file as the hub lists it: its size in bytes, and a SHA-256, or git's SHA-1 of a blob."""

    path: str
    size: int
    digest: str


@dataclass(frozen=True)
class Repository:
    """What the hub tells of a repository at one commit."""

    name: str
    kind: Kind
    commit: str
    license: str | None
    files: tuple[HubFile, ...]

    @property
    def source(self) -> str:
        return f"hub:{self.name}"


def look_up(name: str, kind: Kind, revision: str | None = None) -> Repository:
    """Ask the hub for a repository at a commit, or where its main branch is (None).

    Raises UserError where the name is none, there is no such repository or commit, access is
    refused or the hub is out of reach.
    """
    from huggingface_hub import HfApi

    with readable_errors(name, kind, revision):
        info: Any = HfApi().repo_info(
            name, revision=revision, repo_type=kind, timeout=TIMEOUT_SECONDS, files_metadata=True
        )
        files = tuple(_file(sibling, name) for sibling in info.siblings or [])
        license_name = _license(info.card_data)
    if not COMMIT.fullmatch(str(info.sha)) or revision not in (None, info.sha):
        raise UserError(
            f"its revision {revision} is no commit", where=f"hub:{name}", remedy="run `make pin`"
        )
    return Repository(name, kind, info.sha, license_name, files)


def to_fetch(files: Sequence[HubFile]) -> int:
    """How many bytes of these files are not here yet."""
    return sum(file.size - _bytes_here(file) for file in files)


def bring(
    repository: Repository, files: Sequence[HubFile], folder: Path, *, quiet: bool = False
) -> None:
    """Put these files of the repository under `folder`; say what is fetched before, unless `quiet`.

    Raises UserError where the disk has too little room, a file comes cut off or changed, access
    is refused or the connection breaks, and OSError where the disk is full after all.
    """
    store = _store()
    store.mkdir(parents=True, exist_ok=True)
    with (store / "lock").open("w") as lock:
        # An experiment in a copy of this tree may want the same file: it waits.
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing, whole = to_fetch(files), sum(file.size for file in files)
        _check_room(repository, missing, whole, folder)
        if missing:
            if not quiet:
                say(_announcement(repository, files, missing))
            _fetch(repository, files, missing)
        with progress(desc="check", unit="B", total=whole, scaled=True) as bar:
            for file in files:
                target = folder / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                _copy_proven(repository, file, target, bar)


def read(repository: Repository, file: HubFile) -> bytes:
    """The content of a small file. Raises UserError as `bring` does."""
    with tempfile.TemporaryDirectory() as folder:
        bring(repository, [file], Path(folder), quiet=True)
        return (Path(folder) / file.path).read_bytes()


def count_text(files: Sequence[HubFile]) -> str:
    return "1 file" if len(files) == 1 else f"{len(files)} files"


def _file(sibling: Any, name: str) -> HubFile:
    digest = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    path, size = sibling.rfilename, sibling.size
    # The digest becomes a file's name here.
    if not DIGEST.fullmatch(str(digest)) or type(size) is not int or size < 0:
        raise UserError(f"{path} is listed without size and digest", where=f"hub:{name}")
    if not (isinstance(path, str) and path.isprintable()):
        raise UserError(f"{path!r} is listed, which names no file", where=f"hub:{name}")
    return HubFile(path, size, digest)


def _license(card: Any) -> str | None:
    found = card.license if card else None
    return ", ".join(map(str, found)) if isinstance(found, list) else found and str(found)


def _store() -> Path:
    """Of the main checkout, which DVC names to an experiment in a copy."""
    return Path(os.environ.get("DVC_ROOT") or ".") / ".dvc" / "hub"


def _whole(file: HubFile) -> Path:
    return _store() / file.digest


def _part(file: HubFile) -> Path:
    return _store() / f"{file.digest}.part"


def _bytes_here(file: HubFile) -> int:
    if _whole(file).exists():
        return file.size
    part = _part(file)
    return min(part.stat().st_size, file.size) if part.is_file() else 0


def _check_room(repository: Repository, missing: int, whole: int, folder: Path) -> None:
    """Fetched once, copied once; a tenth of a GB for all else."""
    free, needed = shutil.disk_usage(folder).free, missing + whole + 10**8
    if needed > free:
        raise UserError(
            f"{size_text(needed)} of disk are needed, {size_text(free)} are free",
            where=repository.source,
            remedy="free some, then run it again",
        )


def _announcement(repository: Repository, files: Sequence[HubFile], missing: int) -> str:
    here = sum(file.size for file in files) - missing
    also = f" ({size_text(here)} more are here already)" if here else ""
    where = f"{repository.source} at {repository.commit[:12]}"
    return f"fetching {size_text(missing)} of {where}, {count_text(files)}{also}"


def _fetch(repository: Repository, files: Sequence[HubFile], missing: int) -> None:
    with progress(desc="hub", unit="B", total=missing, scaled=True) as bar:
        for file in files:
            if not _whole(file).exists():
                _fetch_one(repository, file, bar)


def _fetch_one(repository: Repository, file: HubFile, bar: Any) -> None:
    """Go on from what is here of the file, until its size is right."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    name, kind, commit = repository.name, repository.kind, repository.commit
    part = _part(file)
    with readable_errors(name, kind, commit), part.open("ab") as stream:
        url = hf_hub_url(name, file.path, repo_type=kind, revision=commit)
        if stream.tell() < file.size:
            http_get(
                url,
                stream,
                resume_size=stream.tell(),
                headers=build_hf_headers(),
                displayed_filename=file.path,
                _tqdm_bar=bar,
            )
    size = part.stat().st_size
    if size < file.size:
        raise UserError(
            f"{file.path} ended after {size} of {file.size} bytes",
            where=repository.source,
            remedy="what came is kept, run it again",
        )
    part.rename(_whole(file))


def _copy_proven(repository: Repository, file: HubFile, target: Path, bar: Any) -> None:
    """Copy a file that is here; raise UserError, and forget it, where its digest is another."""
    whole = _whole(file)
    digest = hashlib.sha256()
    if len(file.digest) != digest.digest_size * 2:
        size = whole.stat().st_size
        digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with whole.open("rb") as source, target.open("wb") as copy:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            copy.write(chunk)
            bar.update(len(chunk))
    if digest.hexdigest() != file.digest:
        whole.unlink()
        raise UserError(
            f"{file.path} is not what the hub lists: its digest is {digest.hexdigest()[:12]}, "
            f"not {file.digest[:12]}",
            where=repository.source,
            remedy="it was removed, run it again",
        )
