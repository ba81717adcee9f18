"""Servers that mean no good: each answers every request in its own way, byte by byte."""

import gzip
import json
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from socket import socket
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

from tests.judging.server import DIGEST
from tests.serving import serving

# Yields what is sent, piece by piece.
Sender = Callable[["Server"], Generator[bytes]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
ESCAPES = '{"error": "\\u001b[31mPWN\\u001b[2J\\u202eevil\\nerror: second line"}'


class Server(ThreadingTCPServer):
    """Remembers every request line that it got."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, sender: Sender) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.sender = sender
        self.asked: list[str] = []
        self.other = "http://127.0.0.1:9/steal"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """A client that goes away is what is wanted."""


class _Handler(StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        while line := self.rfile.readline():
            self.server.asked.append(line.decode("latin-1").strip())
            length = 0
            while (header := self.rfile.readline()) not in (b"\r\n", b""):
                name, _, value = header.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            self.rfile.read(length)
            for piece in self.server.sender(self.server):
                self.wfile.write(piece)
            return


@contextmanager
def serve(sender: Sender) -> Generator[Server]:
    with Server(sender) as server, serving(server):
        yield server


def whole(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def once(content: bytes) -> Sender:
    def send(_: Server) -> Generator[bytes]:
        yield content

    return send


def dripping(start: bytes, piece: bytes, seconds: float) -> Sender:
    """`piece` for ever, one each so many seconds."""

    def send(_: Server) -> Generator[bytes]:
        yield start
        while True:
            yield piece
            time.sleep(seconds)

    return send


def redirect(status: str) -> Sender:
    def send(server: Server) -> Generator[bytes]:
        yield whole(b"", status, f"Location: {server.other}")

    return send


def listed(digest: str) -> bytes:
    return whole(json.dumps({"models": [{"model": "toy:latest", "digest": digest}]}).encode())


SLOW: dict[str, Sender] = {
    "one byte of the body a second": dripping(HEAD + b"Content-Length: 100000\r\n\r\n", b" ", 0.5),
    "one byte of a header a second": dripping(HEAD + b"X-Slow: ", b"a", 0.5),
    "one byte of the status a second": dripping(b"HTTP/1.1 ", b"2", 0.5),
    "continue, for ever": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.2),
    "chunks of nothing that never end": dripping(CHUNKED, b"1\r\n \r\n", 0.5),
}
MISSHAPEN: dict[str, Sender] = {
    "an endless body": dripping(CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n", 0),
    "a body of 10 GB": dripping(HEAD + b"Content-Length: 10000000000\r\n\r\n", b" " * 65536, 0),
    "an endless body without a length": dripping(HEAD + b"\r\n", b"[" * 65536, 0),
    "an endless header": dripping(HEAD + b"X-Long: ", b"a" * 65536, 0),
    "endless headers": dripping(HEAD, b"X-Many: a\r\n" * 1000, 0),
    "broken JSON": once(whole(b'{"models": [{"model": "toy')),
    "no JSON": once(whole(b"<html>hello</html>")),
    "null": once(whole(b"null")),
    "a number for a list": once(whole(b'{"models": 5, "message": 5}')),
    "another shape": once(whole(b'[{"models": []}]')),
    "no UTF-8": once(whole(b'{"models": [{"model": "toy:latest", "digest": "\xff\xfe"}]}')),
    "200,000 brackets": once(whole(b'{"models":' + b"[" * 200_000 + b"]" * 200_000 + b"}")),
    "a number of 5,000 digits": once(whole(b'{"models": ' + b"9" * 5000 + b"}")),
    "nothing at all": once(b""),
    "no content": once(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "no HTTP": once(b"\x00\xffSSH-2.0-OpenSSH\r\n\r\n"),
    "a length that is none": once(HEAD + b"Content-Length: -5\r\n\r\n{}"),
    "two lengths": once(HEAD + b"Content-Length: 2\r\nContent-Length: 200\r\n\r\n{}"),
    "a bomb of gzip": once(
        whole(gzip.compress(b" " * 200_000_000, 1), "200 OK", "Content-Encoding: gzip")
    ),
    "escapes in an error": once(whole(ESCAPES.encode(), "500 Internal Server Error")),
    "escapes in a digest": once(listed("\x1b[31mPWNx\x1b[2J")),
    "escapes in the status": once(whole(b"{}", "500 \x1b[2JPWN")),
    "a long error": once(whole(b'{"error": "' + b"a" * 100_000 + b'"}', "400 Bad Request")),
    "an error of another shape": once(whole(b"[1]", "400 Bad Request")),
}
REDIRECTS = {
    status: redirect(f"{status} Elsewhere") for status in ("301", "302", "303", "307", "308")
}
FINE = listed(DIGEST)
