"""A hub on 127.0.0.1 that takes what is published, as huggingface.co does without Xet.

It keeps repositories, their commits and the blobs that arrived, checks what it is sent, and fails
on demand: a fault belongs to one request, named by its method, its path and how often it came.
"""

import base64
import hashlib
import json
import socket
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.serving import serving

TOKEN = "hf_markerDoNotStoreThisToken0123456789"
# What is longer comes in parts of this size.
PART = 4096
SIGNATURE = "X-Amz-Signature=5ecre7"
INVALID = {"X-Error-Message": "Invalid credentials in Authorization header"}
Request = tuple[str, str, int]


@dataclass
class Repository:
    """Its commits, oldest first: a name and the files with their content."""

    private: bool
    commits: list[tuple[str, dict[str, bytes]]]

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1]

    def at(self, revision: str) -> dict[str, bytes] | None:
        revision = self.head if revision == "main" else revision
        return dict(self.commits).get(revision)

    def add(self, files: dict[str, bytes]) -> str:
        """Add a commit, as someone else would, too; return its name."""
        name = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits.append((name, files))
        return name


@dataclass
class Fault:
    """What happens at a request: a status, "cut" before it is read, or "lost" after it was done."""

    request: Request
    kind: int | str
    lasting: bool = False

    def hits(self, request: Request) -> bool:
        same = request[:2] == self.request[:2]
        return same and (request[2] >= self.request[2] if self.lasting else request == self.request)


@dataclass
class State:
    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    # Paths that a .gitignore there keeps out.
    ignored: set[str] = field(default_factory=set)


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state, self.fault, self.lock = State(), None, Lock()
        self.fault: Fault | None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def reset(self, fault: Fault | None = None) -> None:
        """Forget everything, and fail so from now on."""
        self.state, self.fault = State(), fault

    def sent(self) -> list[str]:
        """The uploads of content: which blobs, or parts of them, came."""
        return [path for method, path, _ in self.state.requests if method == "PUT"]


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"
    # An answer goes out at once and in one piece.
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.state = self.server.state
        path = unquote(url.path)
        with self.server.lock:
            seen = Counter(each[:2] for each in self.state.requests)[self.command, path]
            request = (self.command, path, seen)
            self.state.requests.append(request)
        fault = self.server.fault
        kind = fault.kind if fault and fault.hits(request) else None
        if kind == "cut":
            self._cut()
        elif isinstance(kind, int):
            # The worst of servers repeats what it was sent.
            told = {"error": f"fault at {self.path} for {self.headers.get('Authorization')}"}
            self._json(told, kind, {"Retry-After": "7"} if kind == 429 else {})
        else:
            with self.server.lock:
                reply = self._route(path, parse_qs(url.query))
            if kind == "lost":
                self._cut()
            else:
                reply()

    def _route(self, path: str, query: dict[str, list[str]]) -> Any:
        """Do what was asked; return what sends the answer."""
        parts = path.strip("/").split("/")
        if parts[0] == "storage":
            # A signed URL is its own permission; the token has no business there.
            if "Authorization" in self.headers or SIGNATURE not in self.path:
                return self._later({"error": "signature"}, 403)
            return self._store(parts[1], int(query["part"][0]) if "part" in query else None)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._later({"error": "Invalid username or password."}, 401, INVALID)
        if path == "/api/repos/create":
            return self._create(json.loads(self.body))
        if path == "/api/validate-yaml":
            return self._validate(json.loads(self.body)["content"])
        name = "/".join(parts[2:4]) if parts[0] == "api" else "/".join(parts[:2])
        repository = self.state.repositories.get(name.removesuffix(".git"))
        if repository is None:
            return self._later({"error": "not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        if parts[0] == "api":
            return self._api(repository, name, parts[4:])
        if parts[2] == "resolve":
            return self._resolve(repository, parts[3], "/".join(parts[4:]))
        if parts[2:4] == ["info", "lfs"]:
            return self._lfs(name, parts[-1])
        return self._later({"error": f"no such page: {path}"}, 404)

    def _api(self, repository: Repository, name: str, rest: list[str]) -> Any:
        if rest == [] or rest[0] == "revision":
            head = {"id": name, "sha": repository.head, "private": repository.private}
            siblings = [{"rfilename": file} for file in repository.files]
            return self._later({**head, "tags": [], "siblings": siblings})
        files = repository.at(rest[1])
        if rest[0] not in ("tree", "paths-info", "preupload", "commit"):
            return self._later({"error": f"no such page: {self.path}"}, 404)
        if files is None:
            return self._later({"error": "revision"}, 404, {"X-Error-Code": "RevisionNotFound"})
        if rest[0] == "tree":
            return self._later([_listed(*file) for file in files.items()])
        if rest[0] == "paths-info":
            wanted = parse_qs(self.body.decode())["paths"]
            return self._later([_listed(path, files[path]) for path in wanted if path in files])
        if rest[0] == "preupload":
            modes = [_mode(each, files) for each in json.loads(self.body)["files"]]
            for mode in modes:
                mode["shouldIgnore"] = mode["path"] in self.state.ignored
            return self._later({"files": modes})
        return self._commit(repository, name)

    def _create(self, wanted: dict[str, Any]) -> Any:
        name = f"{wanted['organization']}/{wanted['name']}"
        url = {"url": f"{self.server.address}/{name}"}
        if name in self.state.repositories:
            return self._later({"error": "You already created this model repo", **url}, 409)
        repository = Repository(wanted.get("visibility") == "private", [])
        repository.add({".gitattributes": b"*.safetensors filter=lfs\n"})
        self.state.repositories[name] = repository
        return self._later(url)

    def _validate(self, content: str) -> Any:
        _, block, _ = content.split("---\n", 2)
        if "license" in yaml.safe_load(block):
            return self._later({"errors": [], "warnings": []})
        return self._later({"errors": [{"message": '"license" is missing'}]}, 400)

    def _lfs(self, name: str, last: str) -> Any:
        if last == "batch":
            objects = json.loads(self.body)["objects"]
            actions = [self._action(name, each) for each in objects]
            return self._later({"transfer": "basic", "objects": actions})
        if last == "verify":
            there = self.state.blobs.get(json.loads(self.body)["oid"])
            return self._later({}, 200 if there is not None else 404)
        return self._later({"error": "no such page"}, 404)

    def _action(self, name: str, blob: dict[str, Any]) -> dict[str, Any]:
        """How to upload a blob; no action for one that is there."""
        if blob["oid"] in self.state.blobs:
            return blob
        url = f"{self.server.address}/storage/{blob['oid']}?{SIGNATURE}"
        verify = {"href": f"{self.server.address}/{name}/info/lfs/verify"}
        if blob["size"] <= PART:
            return {**blob, "actions": {"upload": {"href": url}, "verify": verify}}
        count = -(-blob["size"] // PART)
        header = {str(n): f"{url}&part={n}" for n in range(1, count + 1)}
        upload = {"href": url, "header": {"chunk_size": str(PART), **header}}
        return {**blob, "actions": {"upload": upload, "verify": verify}}

    def _store(self, oid: str, part: int | None) -> Any:
        parts = self.state.parts.setdefault(oid, {})
        if part is not None:
            parts[part] = self.body
            return self._later({}, headers={"ETag": hashlib.md5(self.body).hexdigest()})
        content = self.body
        if self.command == "POST":
            told = [each["partNumber"] for each in json.loads(self.body)["parts"]]
            content = b"".join(parts[number] for number in told)
        if hashlib.sha256(content).hexdigest() != oid:
            return self._later({"error": "not the content that was announced"}, 400)
        self.state.blobs[oid] = content
        return self._later({})

    def _commit(self, repository: Repository, name: str) -> Any:
        header, *lines = [json.loads(line) for line in self.body.splitlines()]
        if header["value"].get("parentCommit", repository.head) != repository.head:
            return self._later({"error": "A commit has happened since."}, 412)
        files = dict(repository.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            elif value["oid"] not in self.state.blobs:
                return self._later({"error": f"{value['path']}: its blob never came"}, 400)
            else:
                files[value["path"]] = self.state.blobs[value["oid"]]
        oid = repository.add(files)
        url = f"{self.server.address}/{name}/commit/{oid}"
        return self._later({"success": True, "commitOid": oid, "commitUrl": url})

    def _resolve(self, repository: Repository, revision: str, path: str) -> Any:
        files = repository.at(revision)
        if files is None or path not in files:
            return self._later({"error": "entry"}, 404, {"X-Error-Code": "EntryNotFound"})
        etag = _listed(path, files[path])["oid"]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": revision}
        return lambda: self._send(files[path], 200, headers)

    def _later(self, values: Any, status: int = 200, headers: dict[str, str] | None = None) -> Any:
        return lambda: self._json(values, status, headers or {})

    def _json(self, values: Any, status: int, headers: dict[str, str]) -> None:
        kind = {"Content-Type": "application/json"}
        self._send(json.dumps(values).encode(), status, {**kind, **headers})

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _cut(self) -> None:
        """End the connection without an answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep the test's output clean."""


@contextmanager
def serve() -> Generator[Hub]:
    with Hub() as hub, serving(hub):
        yield hub


def git_name(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".gguf", "tokenizer.json"))


def _listed(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content)}
    if not _is_large(path):
        return {**entry, "oid": git_name(content)}
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\n".encode()
    lfs = {"oid": sha256, "size": len(content), "pointerSize": len(pointer)}
    return {**entry, "oid": git_name(pointer), "lfs": lfs}


def _mode(file: dict[str, Any], there: dict[str, bytes]) -> dict[str, Any]:
    """How the hub wants a file, and what it has of it."""
    path = file["path"]
    oid = None
    if path in there:
        listed = _listed(path, there[path])
        oid = listed["lfs"]["oid"] if "lfs" in listed else listed["oid"]
    return {"path": path, "uploadMode": "lfs" if _is_large(path) else "regular", "oid": oid}
