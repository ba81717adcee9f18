from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from blogtune.common.errors import UserError
from blogtune.common.params import read_params
from blogtune.judging.params import JudgeParams, OneJudge
from blogtune.project.settings import set_value
from tests.judging.server import judge_params

ROOT = Path(__file__).parents[2]
HUB = {"source": "hub:a/b", "revision": "0" * 40}


@pytest.mark.parametrize(
    "host",
    ["http://127.0.0.1:11434", "https://judge.example", "http://[::1]:80/ollama", None],
)
def test_a_url_is_a_host(host: str | None) -> None:
    assert judge_params(host).host == host


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "localhost:11434",
        "ftp://a",
        "http://",
        "http://:80",
        "http://a:b",
        "http://a:99999",
        "http://a b",
        "http://a\nb",
        "$(reboot)",
    ],
)
def test_another_host_is_refused(host: str) -> None:
    with pytest.raises(ValidationError, match="must be null or a URL such as"):
        judge_params(host)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"model": HUB}, "kind ollama cannot use model.source hub:a/b", id="hub model"),
        pytest.param({"kind": "mlx"}, "kind mlx cannot use model.source ollama:", id="mlx"),
        pytest.param({"kind": "embedding"}, "kind embedding cannot use", id="embedding"),
        pytest.param(
            {"kind": "mlx", "model": HUB, "scale": "unit"},
            "scale unit needs kind ollama",
            id="unit without a server",
        ),
        pytest.param({"workers": 0}, "greater than or equal to 1", id="no worker"),
        pytest.param({"timeout_seconds": 0.0}, "greater than 0", id="no time"),
        pytest.param({"retries": -1}, "greater than or equal to 0", id="fewer than no retries"),
        pytest.param(
            {"model": {"source": "ollama:", "revision": None}}, "source must", id="no name"
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        judge_params(**changes)


def test_a_judge_takes_every_key_of_one_judge_and_so_does_a_second() -> None:
    params = read_params("judge", JudgeParams, ROOT / "params.yaml")
    second = judge_params()
    both = JudgeParams.model_validate({**params.model_dump(), "second": second.model_dump()})
    assert both.second == second
    assert set(OneJudge.model_fields) < set(JudgeParams.model_fields)


def test_a_second_judge_with_a_key_of_the_first_only_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes((ROOT / "params.yaml").read_bytes())
    set_value("judge.second", {**judge_params().model_dump(), "other_references": 5}, path)
    with pytest.raises(UserError, match=r"judge\.second\.other_references: unknown key"):
        read_params("judge", JudgeParams, path)
