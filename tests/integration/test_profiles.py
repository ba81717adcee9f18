"""The profiles that need the hub, each from the commands that README shows.

Real: the hub's client against loopback, where small random models and posts of our blog lie under
the profile's names; the Ollama server, where SmolLM2 answers under the name that the profile calls
its judge. The rest is what it always is: make, dvc, training, judging, the verdict.
"""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import ollama
import pytest
from ruamel.yaml import YAML

from blogtune.models.chat import open_chat
from blogtune.models.loading import load_model
from tests.architectures.families import FAMILIES, save
from tests.fetching.hub import COMMIT, Hub, serve
from tests.fusing.conftest import quantized
from tests.integration import reference
from tests.integration.ollama import MODEL, OllamaServer
from tests.integration.ollama import serve as serve_ollama
from tests.integration.project import LIGHT, Project, create

JUDGE = "llama3.2"
# The commit that the profile names, and one of the data set.
REFERENCE, OF_DATA = "0a67737cc96d2554230f90338b163bc6380a2a85", "d1" * 20
# What time forces; all else is the profile's own.
FASTER = {
    # Of 500: the small model takes half a second for 16 pairs.
    "train.iterations": 10,
    "train.evaluate_every": 5,
    "train.save_every": 5,
    # Each question to the judge takes seconds where the machine is busy: an answer is held against
    # its own reference, not against five others besides,
    "judge.other_references": 0,
    # and the judge's test, a dozen probes an item, is of two items.
    "judge.check.items": 2,
}
# SmolLM2 is no judge. Its test is made and told, and lets the verdict pass all the same.
LENIENT = {
    "judge.check.min_right": 1,
    "judge.check.min_auc": 0.0,
    "judge.check.max_unscored": 1.0,
    "judge.check.min_retest_agreement": 0.0,
    "judge.check.max_instruction_gain": 1.0,
    "judge.min_coverage": 0.0,
}
# Rank 8 in 8 of 10 blocks, whose one layer for query, key and value reads 64 numbers and writes
# three times as many; of the real shapes tests/contracts says 786,432.
TOP_8 = set(range(reference.BLOCKS - 8, reference.BLOCKS))
TRAINABLE = 8 * 8 * (64 + 3 * 64)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OllamaServer]:
    with serve_ollama(tmp_path_factory.mktemp("ollama")) as server:
        with ollama.Client(server.address) as client:
            client.copy(MODEL, JUDGE)
        yield server


@pytest.fixture
def data(tmp_path: Path, server: OllamaServer) -> Iterator[Hub]:
    """The hub with the data set, beside which a model is put; both servers in the environment."""
    folder = reference.write_data(tmp_path / "data")
    with serve(reference.DATA, folder, "dataset") as hub, pytest.MonkeyPatch.context() as patch:
        hub.commit, hub.license = OF_DATA, "cc-by-4.0"
        for name, value in {
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(tmp_path / "home/hf"),
            "NO_PROXY": "127.0.0.1",
            "OLLAMA_HOST": server.address,
        }.items():
            patch.setenv(name, value)
        patch.delenv("HF_TOKEN", raising=False)
        yield hub


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """As a fresh clone has it."""
    for name in ("project", "home"):
        (tmp_path / name).mkdir(exist_ok=True)
    project = create(tmp_path / "project", tmp_path / "home")
    project.make("use", "PROFILE=smollm2")
    return project


def fetched(hub: Hub) -> list[str]:
    """The files that were asked for, each as often as it was."""
    files = (path.partition("/resolve/")[2] for path in hub.asked if "/resolve/" in path)
    return sorted(file.partition("/")[2] for file in files)


def rows(project: Project, file: str) -> list[dict[str, Any]]:
    text = (project.root / file).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def adapted_blocks(project: Project) -> set[int]:
    weights = mx.load(str(project.root / "models/adapter/adapters.safetensors"))
    return {int(name.split(".")[2]) for name in weights}


def assert_only_the_needed_came(project: Project, data: Hub, model: Hub) -> None:
    """Each needed file once: config.json too, which tells before the download what it needs."""
    assert fetched(model) == sorted(reference.NEEDED)
    assert fetched(data) == [reference.TABLE]
    base = project.json("models/base/source.json")
    assert base["files"].keys() == reference.NEEDED
    assert (base["revision"], base["license"]) == (REFERENCE, "mit")
    receipt = project.json("data/fetched/source.json")
    assert receipt["files"].keys() == {reference.TABLE}
    assert (receipt["revision"], receipt["license"]) == (OF_DATA, "cc-by-4.0")


def assert_answers_end_as_the_template_does(project: Project) -> None:
    chat = open_chat(load_model(project.root / "models/base", mx.float32).tokenizer)
    names = chat.tokenizer.convert_ids_to_tokens
    assert names([chat.end]) == ["<|end|>"]
    assert set(names(chat.stops)) == set(reference.STOPS)
    for name in ("base", "finetuned", "fused"):
        answers = rows(project, f"data/answers/{name}.jsonl")
        assert "end" in {row["stop"] for row in answers}
        assert not [row for row in answers if "<|" in row["answer"]]


def flat(values: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Dotted keys."""
    items = ((f"{where}{key}", value) for key, value in values.items())
    parts = (flat(v, f"{k}.") if isinstance(v, dict) else {k: v} for k, v in items)
    return {key: value for part in parts for key, value in part.items()}


def assert_the_profile_was_run(project: Project) -> None:
    """What DVC recorded is the profile's, but for pins and what this test changed."""
    read = YAML(typ="safe", pure=True).load
    profile = flat(read(project.root / "profiles/phi3-mini.yaml"))
    stages = read(project.root / "dvc.lock")["stages"].values()
    recorded: dict[str, Any] = {}
    for stage in stages:
        recorded |= flat(stage.get("params", {}).get("params.yaml", {}))
    changed = {*FASTER, *LENIENT, "judge.model.revision", "data.fetch.revision"}
    expected = {key: value for key, value in profile.items() if key not in changed}
    assert {key: recorded[key] for key in expected} == expected
    curve = (project.root / "plots/training.csv").read_text().splitlines()
    rates = {row["learning_rate"] for row in csv.DictReader(curve)}
    assert rates == {"5e-06"}


def assert_adapter_is_the_profiles(project: Project) -> None:
    lora = project.json("models/adapter/adapter_config.json")
    assert lora["num_layers"] == 8
    parameters = lora["lora_parameters"]
    assert {name: parameters[name] for name in ("rank", "scale", "dropout")} == {
        "rank": 8,
        "scale": 5.0,
        "dropout": 0.2,
    }
    assert adapted_blocks(project) == TOP_8
    assert project.json("metrics/training.json")["trainable_parameters"] == TRAINABLE


@pytest.mark.slow
def test_the_reference_setting_runs_to_its_verdict(
    project: Project, data: Hub, server: OllamaServer, tmp_path: Path
) -> None:
    with serve(reference.MODEL, reference.write_model(tmp_path / "model")) as model:
        model.commit, model.license = REFERENCE, "mit"
        data.beside.append(model)
        told = project.make("use", "PROFILE=phi3-mini").stdout
        assert "before it runs: judge.model.revision: ollama:llama3.2 is not pinned" in told
        assert project.make("pin").stdout.splitlines() == [
            f"model.revision: {REFERENCE} (unchanged)",
            f"judge.model.revision: {server.digest} (was None)",
            f"data.fetch.revision: {OF_DATA} (was None)",
        ]
        project.set_all({**FASTER, **LENIENT})
        done = project.make("repro")

    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"to fetch: hub:{reference.MODEL} (model), 10 files, ")
    assert lines[1].startswith(f"to fetch: hub:{reference.DATA} (data.fetch), 1 file, ")
    assert [line.split(":")[0] for line in lines[2:6]] == ["disk", "memory", "time", "judge"]
    assert lines[5] == f"judge: llama3.2 at {server.address}, {server.digest[:12]}"
    assert_only_the_needed_came(project, data, model)
    assert_the_profile_was_run(project)
    assert_adapter_is_the_profiles(project)
    assert_answers_end_as_the_template_does(project)
    assert project.json("metrics/training.json")["answers_cut"] == 0
    assert project.json("metrics/fusion.json")["stored"] == "bfloat16"

    for name in ("base", "finetuned", "fused", "baselines"):
        methods = {row["method"] for row in rows(project, f"data/judgements/{name}.jsonl")}
        assert methods == {"likert logprobs"}
    comparison = project.json("metrics/comparison.json")
    for name in ("finetuned", "fused"):
        assert " judged by likert logprobs" in comparison[name]["verdict"]
        assert "low" in comparison[name]["difference"]
    assert "this adapter: " in done.stdout

    # The hub and its address are gone: what is here needs neither.
    assert project.is_clean()
    assert project.repro() == set()
    card = project.make("publish", "DRY_RUN=1").stdout
    assert f"base_model: {reference.MODEL}\n" in card
    assert f"datasets: {reference.DATA}\n" in card
    assert "Their license: cc-by-4.0." in card


def small_llama(folder: Path) -> Path:
    return save(folder, FAMILIES["llama"], num_hidden_layers=reference.BLOCKS)


def small_qwen3(folder: Path) -> Path:
    return save(folder, FAMILIES["qwen3"], num_hidden_layers=reference.BLOCKS)


def small_phi3_of_4_bits(folder: Path) -> Path:
    plain = save(folder.with_name("plain"), FAMILIES["phi3"], num_hidden_layers=reference.BLOCKS)
    return quantized(plain, folder, bits=4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("profile", "repository", "write"),
    [
        ("phi3-mini-4bit", "mlx-community/Phi-3-mini-4k-instruct-4bit", small_phi3_of_4_bits),
        ("llama3.2-1b", "mlx-community/Llama-3.2-1B-Instruct-bf16", small_llama),
        ("qwen3-0.6b", "Qwen/Qwen3-0.6B", small_qwen3),
    ],
    ids=["phi3-mini-4bit", "llama3.2-1b", "qwen3-0.6b"],
)
def test_the_other_profiles_are_pinned_fetched_and_trained(
    project: Project,
    data: Hub,
    tmp_path: Path,
    profile: str,
    repository: str,
    write: Callable[[Path], Path],
) -> None:
    with serve(repository, write(tmp_path / "model")) as model:
        data.beside.append(model)
        project.make("use", f"PROFILE={profile}")
        assert f"model.revision: {COMMIT} (was None)" in project.make("pin").stdout
        project.set_all(LIGHT)
        said = project.run(*project.command("preflight")).stdout
        assert said.startswith(f"to fetch: hub:{repository} (model), ")
        assert "\ndisk: " in said
        assert "\nmemory: " in said
        ran_stages = project.repro("fetch", "train")
    assert {"fetch", "train"} <= ran_stages
    assert adapted_blocks(project) == TOP_8
    assert not list((project.root / "models").rglob("*.py"))
