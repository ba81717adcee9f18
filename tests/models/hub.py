"""A small hub on 127.0.0.1 that serves model folders as huggingface.co does."""

import hashlib
import json
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "5f0c" * 10
CARD = {"license": "apache-2.0"}


class Hub(ThreadingHTTPServer):
    """Serves one repository at one commit, and remembers which paths were asked for."""

    def __init__(self, repository: str, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repository, self.folder = repository, folder
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def files(self) -> dict[str, bytes]:
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(path)
        model, blob = f"/api/models/{self.server.repository}", f"/{self.server.repository}/resolve/"
        if path in (model, f"{model}/revision/main", f"{model}/revision/{COMMIT}"):
            self._send_json({"id": self.server.repository, "sha": COMMIT, "cardData": CARD})
        elif path == f"{model}/tree/{COMMIT}":
            self._send_json([_entry(*file) for file in self.server.files.items()])
        elif path.startswith(f"{blob}{COMMIT}/"):
            self._send_file(path.removeprefix(f"{blob}{COMMIT}/"))
        else:
            known = path.startswith((model, blob))
            self._send(404, b"", {"X-Error-Code": f"{'Revision' if known else 'Repo'}NotFound"})

    def _send_file(self, name: str) -> None:
        content = self.server.files.get(name)
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        etag = hashlib.sha256(content).hexdigest()
        self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _send_json(self, values: Any) -> None:
        self._send(200, json.dumps(values).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep the test's output clean."""


@contextmanager
def serve(repository: str, folder: Path) -> Generator[Hub]:
    with Hub(repository, folder) as hub:
        thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


def _entry(name: str, content: bytes) -> dict[str, Any]:
    oid = hashlib.sha256(content).hexdigest()
    return {"type": "file", "path": name, "size": len(content), "oid": oid}
