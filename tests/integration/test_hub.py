"""A data set and a model of the hub in the real `dvc repro`, the hub being on loopback."""

import json
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fetching.hub import COMMIT, Hub, serve
from tests.integration.project import LIGHT, Project, create

DATA = "someone/blog"
# Like no other, so that it can stand nowhere by chance; .ci/secrets looks for its own everywhere.
TOKEN = os.environ.get("HF_TOKEN") or "hf_" + os.urandom(17).hex()
NEXT = "6" * 40


def write_table(folder: Path, rows: int) -> None:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    words = [f"w{row} x{row} y{row}" for row in range(rows)]
    posts = [f"p{row % 12}" for row in range(rows)]
    table = {"Frage": words, "Antwort": words[::-1], "post": posts}
    pq.write_table(pa.table(table), folder / "data/train.parquet")


@contextmanager
def gated(repository: str, folder: Path, kind: str, home: Path) -> Generator[Hub]:
    """A gated repository, its address and a token that opens it in the environment."""
    with serve(repository, folder, kind) as hub, pytest.MonkeyPatch.context() as patch:
        hub.access, hub.readers = "gated", {TOKEN}
        for name, value in {
            "HF_ENDPOINT": hub.address,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(home / "hf"),
            "NO_PROXY": "127.0.0.1",
        }.items():
            patch.setenv(name, value)
        yield hub


def assert_nowhere(token: str, folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 100
    assert not [path for path in files if token.encode() in path.read_bytes()]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    write_table(tmp_path / "remote", 120)
    with gated(DATA, tmp_path / "remote", "dataset", tmp_path / "home") as hub:
        yield hub


@pytest.fixture
def project(tmp_path: Path) -> Project:
    for name in ("project", "home"):
        (tmp_path / name).mkdir(exist_ok=True)
    return create(tmp_path / "project", tmp_path / "home")


def take_data_from_the_hub(project: Project) -> None:
    project.set_all(
        {
            "data.path": "data/fetched",
            "data.fetch.source": f"hub:{DATA}",
            "data.columns": {"question": "Frage", "answer": "Antwort"},
        }
    )


@pytest.mark.slow
def test_data_of_the_hub_are_fetched_and_rerun_what_follows_when_they_move(
    project: Project, hub: Hub
) -> None:
    take_data_from_the_hub(project)
    told = project.make("repro", fails=True).stderr
    assert f"data.fetch.revision: hub:{DATA} is not pinned; run `make pin`" in told
    assert f"data.fetch.revision: {COMMIT} (was None)" in project.make("pin").stdout

    said = project.run(*project.command("preflight")).stdout
    assert said.startswith(f"to fetch: hub:{DATA} (data.fetch), 1 file, ")
    assert project.repro("prepare") == {"fetch", "prepare"}
    assert project.json("metrics/data.json")["pairs"] == 120
    assert project.json("metrics/data.json")["posts"] == 12
    receipt = project.json("data/fetched/source.json")
    values = (receipt["source"], receipt["revision"], receipt["license"])
    assert values == (f"hub:{DATA}", COMMIT, "apache-2.0")
    assert project.repro("prepare") == set()
    # Once it is here, nothing is asked: it runs without the hub.
    hub.asked.clear()
    assert project.run(*project.command("preflight")).stdout == ""
    assert hub.asked == []

    write_table(hub.folder, 130)
    hub.commit = NEXT
    assert project.repro("prepare") == set()
    assert f"data.fetch.revision: {NEXT} (was {COMMIT})" in project.make("pin").stdout
    assert project.repro("prepare") == {"fetch", "prepare"}
    assert project.json("metrics/data.json")["pairs"] == 130
    # Without the cache what was fetched once is not fetched again.
    hub.asked.clear()
    project.append("blogtune/fetching/hub.py", "\n# a comment\n")
    assert "fetch" in project.repro("prepare")
    assert not [path for path in hub.asked if "/resolve/" in path]

    # What the token opened is there; the token is nowhere.
    assert TOKEN in hub.tokens
    assert hub.store.tokens == {""}
    assert_nowhere(TOKEN, project.root.parent)


@pytest.mark.slow
def test_data_of_one_s_own_are_read_where_they_lie(project: Project) -> None:
    assert project.repro("fetch", "prepare") == {"fetch", "prepare"}
    assert json.loads((project.root / "data/fetched/source.json").read_text()) == {"source": None}
    file = project.root / "data/raw/lora.jsonl"
    file.write_bytes(file.read_bytes().replace(b"adapter", b"Adapter", 1))
    assert project.repro("prepare") == {"prepare"}


@pytest.mark.slow
def test_another_model_takes_the_commands_that_readme_shows(
    project: Project, tiny_folder: Path, tmp_path: Path
) -> None:
    """A tiny random model stands in the place of the profile's."""
    repository = "Qwen/Qwen3-0.6B"
    with gated(repository, tiny_folder, "model", tmp_path / "home"):
        project.make("use", "PROFILE=qwen3-0.6b")
        assert f"model.revision: {COMMIT} (was None)" in project.make("pin").stdout
        project.set_all({**LIGHT, "train.lora.layers": 2, "answer.max_tokens": 8})
        done = project.make("repro")
    assert done.stdout.startswith(f"to fetch: hub:{repository} (model), 4 files, ")
    assert f"of hub:{repository} at {COMMIT[:12]}, 4 files" in done.stderr
    assert f"base: {repository}, license apache-2.0" in done.stdout
    assert "finetuned" in done.stdout
    assert project.json("models/fused/config.json")["model_type"] == "llama"
    assert f"revision: {COMMIT}" in (project.root / "dvc.lock").read_text()
    assert_nowhere(TOKEN, project.root.parent)
    assert TOKEN not in done.stdout + done.stderr
