"""A model on an Ollama server: is it there, which is it, how long a text does it read?"""

import os
from collections.abc import Callable
from typing import TypeVar

import httpx
import ollama

from blogtune.common.errors import UserError
from blogtune.common.progress import progress

# What the client raises when the server is not there or is no Ollama. ConnectionError is an
# OSError, a body that is no JSON a ValueError; JSON of another shape meets the client unprepared.
MISSHAPEN = (ValueError, TypeError, AttributeError, RecursionError)
NO_ANSWER = (httpx.HTTPError, OSError, *MISSHAPEN)
DEFAULT_ADDRESS = "http://127.0.0.1:11434"
T = TypeVar("T")


class OllamaModel:
    """One model by its name, on the server at `host` (None: where OLLAMA_HOST says)."""

    def __init__(self, name: str, host: str | None, timeout_seconds: float) -> None:
        self.name = name
        self.host = host
        self.timeout_seconds = timeout_seconds

    @property
    def address(self) -> str:
        """Where the server is looked for, as people write it."""
        return self.host or os.environ.get("OLLAMA_HOST") or DEFAULT_ADDRESS

    def client(self) -> ollama.Client:
        """A client to be closed after use."""
        try:
            return ollama.Client(self.host, timeout=self.timeout_seconds)
        except ValueError as error:
            raise UserError(
                f"{self.address!r} is no address: {error}", where="OLLAMA_HOST"
            ) from error

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
        return digests.get(with_tag(self.name))

    def context_length(self) -> int | None:
        """How many tokens the model reads at most; None where the server does not say."""
        info = self._ask(lambda client: client.show(self.name).modelinfo) or {}
        lengths = (info[key] for key in info if key.endswith(".context_length"))
        return next((length for length in lengths if isinstance(length, int)), None)

    def _pull(self) -> None:
        with progress(desc=f"pull {self.name}", unit="B", scaled=True) as bar:

            def pull(client: ollama.Client) -> None:
                for step in client.pull(self.name, stream=True):
                    # Each layer starts from 0 again.
                    if step.total and step.total != bar.total:
                        bar.reset(step.total)
                    bar.update((step.completed or 0) - bar.n)

            self._ask(pull)

    def _ask(self, request: Callable[[ollama.Client], T]) -> T:
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


def in_a_line(error: ollama.ResponseError) -> str:
    """The server's own words and its status, short."""
    return f"{' '.join(str(error.error).split())[:200]} (HTTP {error.status_code})"


def with_tag(name: str) -> str:
    """As the server lists it but for its case: a name without a tag is the latest."""
    return (name if ":" in name.rpartition("/")[2] else f"{name}:latest").casefold()
