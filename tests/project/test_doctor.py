from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from blogtune.project import doctor
from blogtune.project.doctor import Finding, examine
from blogtune.project.settings import Settings, read_settings, set_value
from blogtune.runtime.device import Device
from tests.judging.server import DIGEST, MODEL, NOBODY, serve

ROOT = Path(__file__).parents[2]


def settings(folder: Path, **judge: Any) -> Settings:
    """The committed settings with another judge."""
    path = folder / "params.yaml"
    path.write_bytes((ROOT / "params.yaml").read_bytes())
    for key, value in judge.items():
        set_value(f"judge.{key}", value, path)
    return read_settings(path)


def on_ollama(folder: Path, host: str, **model: Any) -> Settings:
    source = {"source": f"ollama:{MODEL}", "revision": DIGEST, **model}
    return settings(folder, kind="ollama", model=source, host=host)


def findings(settings: Settings, name: str) -> list[Finding]:
    return [finding for finding in examine(settings) if finding.name == name]


@pytest.mark.parametrize(
    ("speed", "loaded", "told", "remedy"),
    [
        pytest.param(150.0, True, "150 GFLOP/s in float32", "", id="fast"),
        pytest.param(
            9.0, True, "9 GFLOP/s in float32: slow; is the machine busy?", "", id="busy machine"
        ),
        pytest.param(
            2.0,
            False,
            "2 GFLOP/s in float32",
            "MLX uses its reference BLAS: rm .venv/.ready; make setup",
            id="reference BLAS",
        ),
    ],
)
def test_a_busy_machine_is_not_taken_for_a_slow_blas(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    speed: float,
    loaded: bool,
    told: str,
    remedy: str,
) -> None:
    monkeypatch.setattr(doctor, "gflops", lambda: speed)
    monkeypatch.setattr(doctor, "LOADED", ["openblas"] if loaded else [])
    monkeypatch.setattr(doctor, "device", lambda: Device("CPU", mx.float32, 2, 1, is_cpu=True))
    assert findings(settings(tmp_path), "matrix product") == [
        Finding("matrix product", told, remedy)
    ]


def test_an_embedding_judge_needs_no_server(tmp_path: Path) -> None:
    assert findings(settings(tmp_path), "Ollama") == [Finding("Ollama", "not needed")]


def test_a_server_with_the_judge_is_found(tmp_path: Path) -> None:
    with serve() as server:
        (found,) = findings(on_ollama(tmp_path, server.address), "Ollama")
        value = f"{MODEL} at {server.address}, {DIGEST[:12]}"
        assert found == Finding("Ollama", value)
        changed = on_ollama(tmp_path, server.address, revision="cd" * 32)
        (other,) = findings(changed, "Ollama")
        assert other == Finding(
            "Ollama", value, "params.yaml has another digest: `make pin` takes this one"
        )


def test_a_model_that_is_not_there_is_lacking(tmp_path: Path) -> None:
    with serve() as server:
        server.digests.clear()
        (found,) = findings(on_ollama(tmp_path, server.address), "Ollama")
    assert found.value == f"no {MODEL} at {server.address}"
    assert found.remedy == f"run `ollama pull {MODEL}`, or set pull: true"


def test_a_server_that_is_not_there_is_lacking(tmp_path: Path) -> None:
    (found,) = findings(on_ollama(tmp_path, NOBODY), "Ollama")
    assert found.value == f"no Ollama server at {NOBODY} (ConnectionError)"
    assert found.remedy.startswith("start it with `ollama serve`")


@pytest.mark.parametrize("revision", [None, DIGEST])
def test_a_judge_that_is_not_pinned_cannot_run_yet(tmp_path: Path, revision: str | None) -> None:
    with serve() as server:
        chosen = on_ollama(tmp_path, server.address, revision=revision)
        found = findings(chosen, "judge.model.revision")
    value = f"cannot run yet: ollama:{MODEL} is not pinned"
    expected = Finding("judge.model.revision", value, "run `make pin`")
    assert found == ([] if revision else [expected])
