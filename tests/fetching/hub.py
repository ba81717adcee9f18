"""A small hub on 127.0.0.1 that serves repositories as huggingface.co does, faults included.

Weights and tables are LFS files: their address leads to a second server, as to a store that must
not see the token.
"""

import hashlib
import json
import re
import struct
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import close_session, constants

from tests.serving import serving

COMMIT = "5f0c" * 10
LICENSE = "apache-2.0"
LARGE = (".safetensors", ".parquet", ".bin")

Access = Literal["open", "gated", "private"]
# What is wrong with a file: the line is closed or reset after so many bytes each time, the file
# comes shorter than listed, or with another byte; or the hub answers with this status.
Fault = tuple[Literal["cut", "reset", "short", "changed", "status"], int]


class Hub(ThreadingHTTPServer):
    """Serves one repository at one commit, and remembers what was asked for, and with which token.

    `access` says what only those may read whose token is among `readers`: the files if gated,
    all if private. At the same address are those of the hubs `beside`, which remember their own.
    """

    daemon_threads = True

    def __init__(self, repository: str, folder: Path, kind: str = "model") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repository, self.folder, self.kind = repository, folder, kind
        self.commit, self.license = COMMIT, LICENSE
        self.beside: list[Hub] = []
        self.access: Access = "open"
        self.readers: set[str] = set()
        self.faults: dict[str, Fault] = {}
        # Whether every request gets this status.
        self.status = 0
        self.listed: list[str] = []
        self.sizes: dict[str, int] = {}
        self.digests: dict[str, str] = {}
        self.asked: list[str] = []
        self.ranges: list[tuple[str, str]] = []
        self.tokens: set[str] = set()
        self.store = _Store(self)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def api(self) -> str:
        return f"/api/{self.kind}s/{self.repository}"

    @property
    def blob(self) -> str:
        return f"/{'datasets/' if self.kind == 'dataset' else ''}{self.repository}/resolve/"

    def holder(self, path: str) -> "Hub":
        """Whose repository is asked for; this one where nobody's is."""
        hubs = (hub for hub in self.beside if path.startswith((hub.api, hub.blob)))
        return next(hubs, self)

    @property
    def files(self) -> dict[str, bytes]:
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}

    @property
    def entries(self) -> list[dict[str, Any]]:
        """What the hub lists; `listed` adds what no honest one has, `sizes` and `digests` lie."""
        extra = dict.fromkeys(self.listed, b"evil")
        entries = [_entry(name, content) for name, content in {**self.files, **extra}.items()]
        for entry in entries:
            entry["size"] = self.sizes.get(entry["path"], entry["size"])
            entry["oid"] = self.digests.get(entry["path"], entry["oid"])
        return entries


class _Store(ThreadingHTTPServer):
    """Where the large files lie; it remembers which tokens came here, which should be none."""

    daemon_threads = True

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), _StoreHandler)
        self.hub, self.tokens = hub, set[str]()


class _Answers(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        raise NotImplementedError

    @property
    def asked(self) -> str:
        return unquote(urlsplit(self.path).path)

    @property
    def token(self) -> str:
        return (self.headers["Authorization"] or "").removeprefix("Bearer ")

    def send(
        self, status: int, content: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def send_file(self, hub: Hub, name: str) -> None:
        content, headers = hub.files[name], {"X-Repo-Commit": hub.commit}
        wrong, count = hub.faults.get(name, ("", 0))
        if wrong == "status":
            self.send(count)
            return
        if wrong == "short":
            content = content[:count]
        if wrong == "changed":
            content = content[:count] + bytes([content[count] ^ 1]) + content[count + 1 :]
        whole, start, status = len(content), 0, 200
        found = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if found:
            start, status = int(found[1]), 206
            hub.ranges.append((name, found[0]))
            headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
        rest = content[start:]
        if wrong in ("cut", "reset"):
            # Promised whole, and the line breaks: each time a little further on.
            headers["Content-Length"] = str(len(rest))
            rest = rest[:count]
            self.close_connection = True
        self.send(status, rest, headers)
        if wrong == "reset":
            time.sleep(0.5)  # until all of it has left
            self.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep the test's output clean."""


class _StoreHandler(_Answers):
    server: _Store

    def do_GET(self) -> None:
        self.server.tokens.add(self.token)
        self.send_file(self.server.hub, self.asked.removeprefix("/"))


class _Handler(_Answers):
    server: Hub

    def do_GET(self) -> None:
        path = self.asked
        hub = self.server.holder(path)
        api, blob = hub.api, hub.blob
        hub.asked.append(path)
        hub.tokens.add(self.token)
        if hub.status:
            self.send(hub.status)
        elif not path.startswith((api, blob)):
            self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif self.token not in hub.readers and (
            hub.access == "private" or (hub.access == "gated" and path.startswith(blob))
        ):
            self._refuse(hub)
        elif path in (api, f"{api}/revision/main", f"{api}/revision/{hub.commit}"):
            card = {"license": hub.license}
            values = {"id": hub.repository, "sha": hub.commit, "cardData": card}
            self._send_json({**values, "siblings": [_sibling(entry) for entry in hub.entries]})
        elif path == f"{api}/tree/{hub.commit}":
            self._send_json(hub.entries)
        elif path.startswith(f"{blob}{hub.commit}/"):
            self._send_blob(hub, path.removeprefix(f"{blob}{hub.commit}/"))
        else:
            self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})

    def _refuse(self, hub: Hub) -> None:
        """As the hub does: 401 to nobody, 403 to somebody who has not accepted; both hide."""
        if hub.access == "gated":
            self.send(403 if self.token else 401, b"", {"X-Error-Code": "GatedRepo"})
        elif self.token == "expired":
            said = "Invalid credentials in Authorization header"
            self.send(401, b"", {"X-Error-Message": said})
        else:
            self.send(404 if self.token else 401, b"", {"X-Error-Code": "RepoNotFound"})

    def _send_blob(self, hub: Hub, name: str) -> None:
        content = hub.files.get(name)
        if content is None:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        if not name.endswith(LARGE):
            self.send_file(hub, name)
            return
        sha256 = hashlib.sha256(content).hexdigest()
        linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        port = hub.store.server_address[1]
        where = {"Location": f"http://127.0.0.1:{port}/{name}?signature=secret"}
        self.send(302, b"", {**linked, **where, "X-Repo-Commit": hub.commit})

    def _send_json(self, values: Any) -> None:
        self.send(200, json.dumps(values).encode(), {"Content-Type": "application/json"})


@contextmanager
def client(address: str, folder: Path, token: str | None = None) -> Generator[None]:
    """Let the hub's client in this process ask `address`, from `folder`, with this token or none.

    It reads its address when it is imported, so that is put where it keeps it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setattr(constants, "ENDPOINT", address)
        pattern = "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + pattern)
        patch.setattr(constants, "HF_TOKEN_PATH", str(folder / "no-token"))
        patch.delenv("HF_TOKEN", raising=False)
        if token is not None:
            patch.setenv("HF_TOKEN", token)
        close_session()
        try:
            yield
        finally:
            close_session()


@contextmanager
def serve(repository: str, folder: Path, kind: str = "model") -> Generator[Hub]:
    with Hub(repository, folder, kind) as hub, hub.store, serving(hub), serving(hub.store):
        yield hub


def _entry(name: str, content: bytes) -> dict[str, Any]:
    """A file as the tree lists it: git's digest, and for a large one that of its content."""
    size, blob = len(content), hashlib.sha1(b"blob %d\0" % len(content) + content)
    entry = {"type": "file", "path": name, "size": size, "oid": blob.hexdigest()}
    if name.endswith(LARGE):
        sha256 = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": sha256, "size": size, "pointerSize": 134}
    return entry


def _sibling(entry: dict[str, Any]) -> dict[str, Any]:
    """The same as the repository's information spells it."""
    lfs = entry.get("lfs")
    large = {"lfs": {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": 134}} if lfs else {}
    name, size, blob = entry["path"], entry["size"], entry["oid"]
    return {"rfilename": name, "size": size, "blobId": blob, **large}
