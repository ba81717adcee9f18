"""What lies beside a model stays where it is, and a link leads nowhere else."""

from pathlib import Path

import pytest

from blogtune.common.errors import UserError
from blogtune.common.model_files import is_of_model
from blogtune.common.sources import ModelParams
from blogtune.fetching.fetch import fetch

WEIGHTS = b"weights"
PRIVATE = ("passwords.txt", "notes.json", "customers.jinja", ".env", "train.txt", "id_rsa")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "models--me--mine" / "snapshots" / "5f0c"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "vocab.txt").write_text("a b")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    return folder


def fetched(model: Path, tmp_path: Path) -> set[str]:
    output = tmp_path / "base"
    fetch(ModelParams(source=f"path:{model}", revision=None), output)
    return {file.name for file in output.rglob("*") if file.is_file()}


def test_private_files_beside_the_weights_do_not_come_along(model: Path, tmp_path: Path) -> None:
    for name in PRIVATE:
        (model / name).write_text("secret")
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "notes.json").write_text("secret")
    expected = {"config.json", "vocab.txt", "model.safetensors", "source.json"}
    assert fetched(model, tmp_path) == expected


@pytest.mark.parametrize("name", ["tokenizer_config.json", "vocab.txt", "model.safetensors"])
def test_a_link_out_of_the_folder_is_refused_and_named(
    model: Path, tmp_path: Path, name: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(secret)
    with pytest.raises(UserError, match=r"a link that leads out of the model's folder") as caught:
        fetched(model, tmp_path)
    assert name in str(caught.value)
    assert not (tmp_path / "base").exists()


def test_links_inside_the_folder_and_into_the_hubs_cache_are_followed(
    model: Path, tmp_path: Path
) -> None:
    blobs = model.parent.parent / "blobs"
    blobs.mkdir()
    (model / "model.safetensors").rename(blobs / "53aa")
    (model / "model.safetensors").symlink_to("../../blobs/53aa")
    (model / "tokenizer.json").symlink_to("config.json")
    assert "tokenizer.json" in fetched(model, tmp_path)
    assert (tmp_path / "base" / "model.safetensors").read_bytes() == WEIGHTS
    assert not any(file.is_symlink() for file in (tmp_path / "base").iterdir())


@pytest.mark.parametrize("name", [*PRIVATE, "source.json", "a/config.json", "x.py", "x.bin"])
def test_no_other_name_is_a_models(name: str) -> None:
    assert not is_of_model(name)


@pytest.mark.parametrize(
    "name", ["config.json", "model-00001-of-00002.safetensors", "1_Pooling/config.json"]
)
def test_a_models_own_names_are_its(name: str) -> None:
    assert is_of_model(name)
