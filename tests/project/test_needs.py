"""What is told before a download: bytes, disk over all copies, memory; and what is refused."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from click.testing import CliRunner
from mlx.utils import tree_flatten

from blogtune.common.errors import UserError
from blogtune.project.doctor import examine
from blogtune.project.needs import ALL_ELSE, Needs, Weights, needs_of
from blogtune.project.settings import read_settings, set_value
from blogtune.runtime.device import device
from blogtune.runtime.workers import how_many
from commands import preflight
from tests import tiny
from tests.fetching.hub import COMMIT, Hub, client, serve
from tests.judging.server import NOBODY

ROOT = Path(__file__).parents[2]
REPOSITORY = "someone/phi"
# The two shards of Phi-3 mini in half floats: two bytes for each of its weights.
PHI3_WEIGHTS = 3_821_079_552
SHARDS = {"model-00001-of-00002.safetensors": 4_972_489_328}
SHARDS["model-00002-of-00002.safetensors"] = 2 * PHI3_WEIGHTS - 4_972_489_328

PHI3_CONFIG = {
    "torch_dtype": "bfloat16",
    "hidden_size": 3072,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A model that is as large as the reference's, by its listing."""
    folder = tmp_path / "remote"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(PHI3_CONFIG))
    for name in SHARDS:
        (folder / name).write_text(name)
    with serve(REPOSITORY, folder) as hub:
        hub.sizes = dict(SHARDS)
        yield hub


def write_params(folder: Path, **values: Any) -> Path:
    """The committed settings with this model of the hub."""
    path = folder / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", path)
    (folder / "data").mkdir(exist_ok=True)
    for name in ("raw", "paraphrases.jsonl"):
        (folder / "data" / name).symlink_to(ROOT / "data" / name)
    model = {"model.source": f"hub:{REPOSITORY}", "model.revision": COMMIT}
    for key, value in {**model, **values}.items():
        set_value(key, value, path)
    return path


def needs(hub: Hub, folder: Path) -> Needs:
    with client(hub.address, folder):
        return needs_of(read_settings(write_params(folder)))


def test_the_reference_model_needs_this_much(hub: Hub, tmp_path: Path) -> None:
    found = needs(hub, tmp_path)
    weights, small = 2 * PHI3_WEIGHTS, len(hub.files["config.json"])
    a_token = 2 * 32 * 3072
    assert found.weights == Weights(weights, PHI3_WEIGHTS, quantized=False, a_token=a_token)
    assert found.parts_of_disk() == {
        ".dvc/hub": weights + small,
        "models and data": weights + small,
        "models/fused": weights,
        "DVC's cache": 2 * weights + small,
        "other files": ALL_ELSE,
    }
    each = 4 if device().is_cpu else 2
    # One answer of 200 tokens: two steps of its caches, and what is held while they grow.
    caches = int(256 * each * a_token * 8 / 3)
    processes = how_many(found.settings.runtime, weights)
    assert found.memory() == processes * (each * PHI3_WEIGHTS + caches) + ALL_ELSE


def test_it_is_told_before_a_weight_is_fetched(hub: Hub, tmp_path: Path) -> None:
    lines = list(needs(hub, tmp_path).lines())
    assert lines[0] == f"to fetch: hub:{REPOSITORY} (model), 3 files, 7.64 GB"
    assert lines[1].startswith("disk: 39.3 GB needed (.dvc/hub 7.64 GB, models and data 7.64 GB, ")
    assert lines[1].endswith(" GB free")
    assert lines[2].startswith("memory: about ")
    assert not [path for path in hub.asked if path.endswith(".safetensors")]


def test_what_is_here_of_a_file_need_not_be_fetched(hub: Hub, tmp_path: Path) -> None:
    digest = next(e["lfs"]["oid"] for e in hub.entries if e["path"] == min(SHARDS))
    (tmp_path / ".dvc/hub").mkdir(parents=True)
    with (tmp_path / f".dvc/hub/{digest}.part").open("wb") as part:
        part.truncate(3 * 10**9)
    found = needs(hub, tmp_path)
    assert found.parts_of_disk()[".dvc/hub"] == (
        2 * PHI3_WEIGHTS + len(hub.files["config.json"]) - 3 * 10**9
    )
    assert next(iter(found.lines())).endswith("7.64 GB, 3 GB of it here already")


def test_a_disk_that_is_too_small_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.sizes[min(SHARDS)] = 10**18
    found = needs(hub, tmp_path)
    with pytest.raises(UserError) as caught:
        found.check_disk()
    assert str(caught.value).startswith("disk: 5e+09 GB needed, ")
    assert "free some space, or move DVC's cache" in str(caught.value)


def test_preflight_tells_it_and_refuses(hub: Hub, tmp_path: Path) -> None:
    write_params(tmp_path)
    (tmp_path / ".git").mkdir()
    with client(hub.address, tmp_path):
        hub.sizes = dict.fromkeys(SHARDS, 1000)
        told = CliRunner().invoke(preflight.main)
        assert told.exit_code == 0, told.output
        assert told.stdout.startswith(f"to fetch: hub:{REPOSITORY} (model), 3 files, 2.13 kB\n")
        hub.sizes = dict.fromkeys(SHARDS, 10**18)
        told = CliRunner().invoke(preflight.main)
        assert told.exit_code == 1
        assert told.stderr.startswith("error: disk: 1e+10 GB needed, ")


def test_preflight_tells_of_a_judge_that_cannot_be_asked_yet(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    judge = {"kind": "ollama", "host": NOBODY, "model.source": "ollama:toy"}
    values = {f"judge.{key}": value for key, value in judge.items()}
    write_params(tmp_path, **values, **{"judge.model.revision": "ab" * 32})
    with client(hub.address, tmp_path):
        hub.sizes = dict.fromkeys(SHARDS, 1000)
        told = CliRunner().invoke(preflight.main).stdout.splitlines()
    assert told[-1].startswith(f"judge: no Ollama server at {NOBODY} (ConnectionError); start it")


def test_a_model_that_is_here_asks_nobody(hub: Hub, tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "models/base")
    receipt = {"source": f"hub:{REPOSITORY}", "revision": COMMIT}
    (tmp_path / "models/base/source.json").write_text(json.dumps(receipt))
    found = needs(hub, tmp_path)
    assert found.downloads == []
    assert hub.asked == []
    assert found.weights is not None
    assert found.weights.stored == (tiny_folder / "model.safetensors").stat().st_size


def count(network: nn.Module) -> int:
    return sum(array.size for _, array in tree_flatten(network.parameters()))


@pytest.mark.parametrize("bits", [None, 4, 8])
def test_the_number_of_weights_is_the_network_s(tmp_path: Path, bits: int | None) -> None:
    network = tiny.network(hidden_size=256, intermediate_size=512)
    number = count(network)
    network.set_dtype(mx.float16)
    config: dict[str, Any] = {}
    if bits:
        nn.quantize(network, group_size=64, bits=bits)
        config = {"quantization": {"group_size": 64, "bits": bits}}
    folder = tmp_path / "models/base"
    folder.mkdir(parents=True)
    tiny.write_weights(folder, network, **config)
    path = write_params(tmp_path, **{"model.source": f"path:{folder}", "model.revision": None})
    weights = needs_of(read_settings(path)).weights
    assert weights is not None
    assert weights.quantized == bool(bits)
    assert weights.number == pytest.approx(number, rel=0.02)
    assert weights.merged() == pytest.approx(2 * number, rel=0.02)


def test_a_float32_model_has_half_as_many_weights_as_its_bytes_say() -> None:
    assert Weights(4000, 1000, quantized=False).merged() == 4000
    assert Weights(4000, 1000, quantized=False).fusing() == 4000


def test_doctor_knows_the_need_where_the_hub_tells(hub: Hub, tmp_path: Path) -> None:
    path = write_params(tmp_path)
    with client(hub.address, tmp_path):
        found = {finding.name: finding for finding in examine(read_settings(path))}
    assert found["disk"].value.endswith(f"about {(39.28e9) / 2**30:.1f} needed")


def test_doctor_says_why_it_does_not_know(tmp_path: Path) -> None:
    path = write_params(tmp_path, **{"model.revision": None})
    with client("http://127.0.0.1:9", tmp_path):
        found = {finding.name: finding for finding in examine(read_settings(path))}
    why = f"hub:{REPOSITORY}: its revision is not pinned; run `make pin`"
    assert found["memory"].value.endswith(f"the need is unknown: {why}")
    assert found["memory"].remedy == ""
