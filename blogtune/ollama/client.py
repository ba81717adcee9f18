"""A model on an Ollama server: is it there, which is it, how long a text does it read?"""

import os
import re
from collections.abc import Callable, Iterable
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from blogtune.common.errors import UserError
from blogtune.common.output import in_one_line
from blogtune.common.progress import progress
from blogtune.common.proxies import proxy_variable
from blogtune.ollama.package import ollama
from blogtune.ollama.transport import Transport, proxy_for

# What the client raises when the server is not there or is no Ollama. ConnectionError is an
# OSError, a body that is no JSON a ValueError; JSON of another shape meets the client unprepared.
MISSHAPEN = (ValueError, TypeError, AttributeError, RecursionError)
NO_ANSWER = (httpx.HTTPError, OSError, *MISSHAPEN)
DEFAULT_ADDRESS = "http://127.0.0.1:11434"
DIGEST = re.compile(r"[0-9a-f]{64}")
T = TypeVar("T")


class Client(ollama.Client):
    """The package's client, which goes nowhere else and waits no longer than it is told."""

    def __init__(self, address: str, seconds: float, proxy: str | None) -> None:
        self.transport = Transport(seconds, proxy)
        super().__init__(
            address,
            timeout=seconds,
            follow_redirects=False,
            trust_env=False,
            transport=self.transport,
            headers={"Accept-Encoding": "identity"},
        )

    def follow(self, steps: Iterable[ollama.ProgressResponse], desc: str) -> None:
        """Show how far the server has come; its time starts anew with each step forward."""
        last = None
        with progress(desc=desc, unit="B", scaled=True) as bar:
            for step in steps:
                if step != last:
                    self.transport.renew()
                # Each layer starts from 0 again.
                if step.total and step.total != bar.total:
                    bar.reset(step.total)
                bar.update((step.completed or bar.n) - bar.n)
                last = step


class OllamaModel:
    """One model by its name, on the server at `host` (None: where OLLAMA_HOST says)."""

    def __init__(self, name: str, host: str | None, timeout_seconds: float) -> None:
        self.name = name
        self.host = host
        self.timeout_seconds = timeout_seconds

    @property
    def address(self) -> str:
        """Where the server is looked for, for people: without a password, with the proxy."""
        scheme, between, rest = self._given.rpartition("://")
        shown = f"{scheme}{between}{rest.rpartition('@')[2]}"
        variable = proxy_variable(self._url)
        if variable is None:
            return shown
        host = urlsplit(self._url).hostname
        return f"{shown} (by the proxy in {variable}, which NO_PROXY={host} goes past)"

    @property
    def _given(self) -> str:
        return self.host or os.environ.get("OLLAMA_HOST") or DEFAULT_ADDRESS

    @property
    def _url(self) -> str:
        """With its scheme. Raises UserError where it is no address."""
        url = self._given if "://" in self._given else f"http://{self._given}"
        try:
            parts = urlsplit(url)
            if parts.scheme in ("http", "https") and parts.port != 0 and url.isprintable():
                return url
        except ValueError:
            pass
        raise _no_address()

    def client(self) -> Client:
        """A client to be closed after use."""
        proxy = proxy_for(self._url)
        try:
            return Client(self._given, self.timeout_seconds, proxy)
        except (ValueError, httpx.InvalidURL) as error:
            raise _no_address() from error

    def require(self, *, pull: bool) -> str:
        """The digest of the model, which is pulled first where it is lacking and `pull` says so.

        Raises UserError when there is no server, or the model is not there.
        """
        found = self.digest()
        if found is None and pull:
            self._pull()
            found = self.digest()
        if found is None:
            raise UserError(
                f"the server at {self.address} does not have it",
                where=f"ollama:{self.name}",
                remedy=f"run `ollama pull {self.name}`, or set pull: true in params.yaml",
            )
        return found

    def digest(self) -> str | None:
        """The digest of the model as the server has it; None where it has no such model."""
        listed = self._ask(lambda client: client.list().models)
        digests = {(each.model or "").casefold(): each.digest for each in listed}
        found = digests.get(with_tag(self.name))
        if found is not None and not DIGEST.fullmatch(found):
            raise UserError(
                f"the server at {self.address} lists it with a digest that is none",
                where=f"ollama:{self.name}",
            )
        return found

    def context_length(self) -> int | None:
        """How many tokens the model reads at most; None where the server does not say."""
        info = self.show().modelinfo or {}
        lengths = (info[key] for key in info if key.endswith(".context_length"))
        return next((each for each in lengths if type(each) is int and each > 0), None)

    def show(self) -> ollama.ShowResponse:
        """What the server tells of the model. Raises UserError where it does not."""
        return self._ask(lambda client: client.show(self.name))

    def _pull(self) -> None:
        self._ask(lambda c: c.follow(c.pull(self.name, stream=True), f"pull {self.name}"))

    def _ask(self, request: Callable[[Client], T]) -> T:
        try:
            with self.client() as client:
                return request(client)
        except ollama.ResponseError as error:
            raise UserError(
                f"the server at {self.address} says: {in_a_line(error)}",
                where=f"ollama:{self.name}",
            ) from error
        except NO_ANSWER as error:
            raise UserError(
                f"no Ollama server at {self.address} ({type(error).__name__})",
                remedy="start it with `ollama serve`, or set host in params.yaml to where it is",
            ) from error


def _no_address() -> UserError:
    # What it is stays unsaid: there may be a password in it.
    return UserError(
        "no address of a server", where="OLLAMA_HOST", remedy="it reads http://host:11434"
    )


def in_a_line(error: ollama.ResponseError) -> str:
    """The server's own words and its status, short."""
    if 300 <= error.status_code < 400:
        return f"look elsewhere (HTTP {error.status_code}), and no redirect is followed"
    return f"{in_one_line(str(error.error))[:200]} (HTTP {error.status_code})"


def with_tag(name: str) -> str:
    """As the server lists it but for its case: a name without a tag is the latest."""
    return (name if ":" in name.rpartition("/")[2] else f"{name}:latest").casefold()
