"""A model that is no Llama, and quantized, through the real stages."""

from pathlib import Path

import pytest

from tests.architectures.families import FAMILIES, save
from tests.fusing.conftest import quantized
from tests.integration.project import LIGHT, create


@pytest.mark.slow
def test_a_quantized_phi3_of_ones_own_goes_through_the_whole_pipeline(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    plain = save(tmp_path / "plain", FAMILIES["phi3"], max_position_embeddings=2048)
    folder = quantized(plain, tmp_path / "phi3", bits=4)
    project = create(tmp_path_factory.mktemp("phi3"), tmp_path_factory.mktemp("home"))
    project.set(model__source=f"path:{folder}", answer__max_tokens=8, fuse__dtype="bfloat16")
    # Four blocks, each with one matrix for query, key and value; the profile asks for eight.
    project.set(train__lora__layers=2, train__lora__targets="qkv", train__lora__rank=8)
    # Random weights give no learning rate that suits them.
    project.set_all({**LIGHT, "train.learning_rate": 1e-4, "judge.check.items": 2})
    project.set(judge__other_references=0)
    ran = project.repro()
    assert {"fetch", "train", "fuse", "answer@fused", "judge", "compare"} <= ran
    training = project.json("metrics/training.json")
    assert training["trainable_parameters"] == 2 * 8 * (64 + 192)
    fusion = project.json("metrics/fusion.json")
    assert fusion["stored"] == "bfloat16, dequantized from 4 bits"
    assert fusion["top1_agreement"] >= 0.99
    # Microsoft's way to its own code is gone, and none of it was fetched.
    assert "quantization" in project.json("models/base/config.json")
    assert "quantization" not in project.json("models/fused/config.json")
    assert "auto_map" in project.json("models/base/config.json")
    assert "auto_map" not in project.json("models/fused/config.json")
    assert not list((project.root / "models").rglob("*.py"))
    assert project.is_clean()
