"""How an Ollama server is asked: within a time, within a size, at its own address alone.

The client's own time-out starts anew with each byte that comes, its body is as long as the server
likes, it follows redirects, with question, answer and reference, and a proxy may come between us
and a server on this machine. All four are settled here.
"""

import math
import os
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from blogtune.common.errors import UserError
from blogtune.common.proxies import proxy_variable

# A hundred times the longest reply that is meant, with its probabilities.
MOST_BYTES = 8 * 2**20


class TooLargeError(ValueError):
    """A server sends more than any reply holds."""


class Transport(httpx.HTTPTransport):
    """Gives each request `seconds` from its last byte on, headers included, and MOST_BYTES."""

    def __init__(self, seconds: float, proxy: str | None) -> None:
        super().__init__()
        self._limits = _Limits(seconds)
        pool: dict[str, Any] = {
            "ssl_context": httpx.create_ssl_context(),
            "max_connections": 100,
            "network_backend": _Backend(self._limits),
        }
        if proxy is None:
            self._pool = httpcore.ConnectionPool(**pool)
        else:
            found = httpx.Proxy(proxy)
            self._pool = httpcore.HTTPProxy(str(found.url), proxy_auth=found.raw_auth, **pool)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.renew()
        response = super().handle_request(request)
        # Not asked for, and a few bytes of it may be a thousand times as many.
        response.headers.pop("Content-Encoding", None)
        return response

    def renew(self) -> None:
        """Give what still comes in this thread the whole time and size again."""
        self._limits.renew()


class _Limits(threading.local):
    """Of the request that a thread is at: when it must be done, and what may still come."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.end, self.bytes = math.inf, MOST_BYTES

    def renew(self) -> None:
        self.end, self.bytes = time.monotonic() + self.seconds, MOST_BYTES

    def seconds_left(self, most: float | None = None) -> float:
        left = self.end - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout
        return left if most is None else min(left, most)

    def count(self, size: int) -> None:
        self.bytes -= size
        if self.bytes < 0:
            raise TooLargeError(f"more than {MOST_BYTES} bytes")


class _Backend(httpcore.NetworkBackend):
    def __init__(self, limits: _Limits) -> None:
        self.limits, self.inner = limits, httpcore.SyncBackend()

    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.NetworkStream:
        stream = self.inner.connect_tcp(host, port, self.limits.seconds_left())
        return _Stream(stream, self.limits)


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, limits: _Limits) -> None:
        self.inner, self.limits = inner, limits

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        content = self.inner.read(max_bytes, self.limits.seconds_left(timeout))
        self.limits.count(len(content))
        return content

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.inner.write(buffer, self.limits.seconds_left(timeout))
        # The server's time starts when it has the request: weights take as long as they take.
        self.limits.renew()

    def start_tls(self, *arguments: Any, **named: Any) -> httpcore.NetworkStream:
        named["timeout"] = self.limits.seconds_left()
        return _Stream(self.inner.start_tls(*arguments, **named), self.limits)

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)

    def close(self) -> None:
        self.inner.close()


def proxy_for(address: str) -> str | None:
    """The proxy for this address; raise UserError where it is none that can be used."""
    variable = proxy_variable(address)
    if variable is None:
        return None
    proxy = os.environ[variable]
    try:
        usable = httpx.Proxy(proxy).url.scheme in ("http", "https")
    except (ValueError, httpx.InvalidURL):
        usable = False
    if not usable:
        raise UserError(
            "names no HTTP proxy, and Ollama is reached through no other",
            where=variable,
            remedy=f"unset it, or set NO_PROXY={urlsplit(address).hostname}",
        )
    return proxy
