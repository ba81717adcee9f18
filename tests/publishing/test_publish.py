"""`make publish`, as a command, from a real project to a hub on loopback."""

import hashlib
import json
from pathlib import Path

from huggingface_hub import snapshot_download

from blogtune.project.settings import set_value
from tests.publishing.hub import TOKEN, Fault, Hub
from tests.publishing.project import REPOSITORY, commit, export_gguf, publish, run


def holders_of(text: str, folder: Path) -> list[Path]:
    """The files in which the text stands."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if text.encode() in path.read_bytes()]


def test_what_is_published_comes_back_byte_for_byte(
    hub: Hub, project: Path, tmp_path: Path
) -> None:
    done = publish(project, address=hub.address, token=TOKEN)
    assert done.returncode == 0, done.stderr
    repository = hub.state.repositories[REPOSITORY]
    assert repository.private
    receipt = json.loads((project / "metrics/published.json").read_text())
    assert receipt["commit"] == repository.head
    assert receipt["url"] == f"{hub.address}/{REPOSITORY}"
    assert done.stdout.splitlines() == [
        f"published, files changed: 5: {receipt['commit_url']}",
        "next: commit metrics/published.json",
    ]

    folder = tmp_path / "back"
    snapshot_download(REPOSITORY, endpoint=hub.address, token=TOKEN, local_dir=folder)
    fused = {path.name: path.read_bytes() for path in (project / "models/fused").iterdir()}
    back = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    card = back.pop("README.md")
    assert {name: back[name] for name in fused} == fused
    assert back.keys() - fused.keys() == {".gitattributes"}
    for name, content in {**fused, "README.md": card}.items():
        sha256 = hashlib.sha256(content).hexdigest()
        assert receipt["files"][name] == {"size": len(content), "sha256": sha256}
    head = run(project, "git", "rev-parse", "HEAD").stdout.strip()
    assert receipt["source_commit"] == head
    assert head in card.decode()
    assert receipt["dvc_lock"] == hashlib.sha256((project / "dvc.lock").read_bytes()).hexdigest()


def test_published_twice_sends_nothing_and_changes_no_byte(hub: Hub, project: Path) -> None:
    publish(project, address=hub.address, token=TOKEN)
    receipt = (project / "metrics/published.json").read_bytes()
    commit(project)
    sent = hub.sent()
    done = publish(project, address=hub.address, token=TOKEN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("all of it was there already: ")
    assert hub.sent() == sent
    assert len(hub.state.repositories[REPOSITORY].commits) == 2
    assert (project / "metrics/published.json").read_bytes() == receipt


def test_adapter_and_gguf_are_published_when_wanted(hub: Hub, project: Path) -> None:
    for key in ("adapter", "gguf"):
        set_value(f"publish.{key}", True, project / "params.yaml")
    set_value("publish.private", False, project / "params.yaml")
    commit(project)
    export_gguf(project)
    done = publish(project, address=hub.address, token=TOKEN)
    assert done.returncode == 0, done.stderr
    repository = hub.state.repositories[REPOSITORY]
    assert not repository.private
    assert repository.files["model.gguf"] == b"GGUF"
    assert repository.files["adapter/adapters.safetensors"] == b"adapter"
    assert b"ollama run hf.co/someone/blog" in repository.files["README.md"]


def test_the_token_is_nowhere_afterwards(hub: Hub, project: Path, tmp_path: Path) -> None:
    """The hub fails once, repeats the token in its answer, and the client logs where it was."""
    tokenizer = (project / "models/fused/tokenizer.json").read_bytes()
    oid = hashlib.sha256(tokenizer).hexdigest()
    hub.reset(Fault(("PUT", f"/storage/{oid}", 0), 500))
    done = publish(project, address=hub.address, token=TOKEN)
    assert done.returncode == 0, done.stderr
    assert f"/storage/{oid}" in done.stderr  # the log of the second try is there,
    assert "5ecre7" not in done.stderr  # without the key of the upload's address
    for path, content in hub.state.repositories[REPOSITORY].files.items():
        assert TOKEN.encode() not in content, path
    assert TOKEN not in done.stdout + done.stderr
    assert holders_of(TOKEN, tmp_path) == []


def test_a_refused_token_is_one_line_and_leaves_no_receipt(hub: Hub, project: Path) -> None:
    wrong = "hf_wrongMarker"
    done = publish(project, address=hub.address, token=wrong)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: {REPOSITORY}: looking it up: the hub does not accept the token (401); "
        "run `hf auth login`, or set HF_TOKEN"
    ]
    assert not (project / "metrics/published.json").exists()
    assert holders_of(wrong, project) == []
    assert hub.state.repositories == {}


def test_without_a_token_the_hubs_own_places_are_named(hub: Hub, project: Path) -> None:
    done = publish(project, address=hub.address)
    assert done.returncode == 1
    assert done.stderr == ("error: no token for the hub; run `hf auth login`, or set HF_TOKEN\n")
    assert hub.state.requests == []


def test_a_dry_run_shows_card_and_files_without_token_and_network(hub: Hub, project: Path) -> None:
    set_value("publish.repository", None, project / "params.yaml")
    done = publish(project, "--dry-run", address=hub.address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("---\n")
    assert "> this adapter, fused: improved; " in done.stdout
    size = (project / "models/fused/model.safetensors").stat().st_size
    assert f"{size:14,}  model.safetensors" in done.stdout.splitlines()
    assert done.stderr.splitlines() == [
        "would not publish: publish.repository: not set; set it to <owner>/<name>",
        "would not publish: git: not committed: params.yaml; commit the changes, or undo them",
    ]
    assert hub.state.requests == []
    assert run(project, "git", "status", "--porcelain").stdout == " M params.yaml\n"


def test_each_reason_against_it_is_a_line_before_any_request(hub: Hub, project: Path) -> None:
    (project / "notes.txt").write_text("new")
    (project / "models/fused/config.json").write_text("{}")
    done = publish(project, address=hub.address, token=TOKEN)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("error: ") for line in lines)
    assert hub.state.requests == []
