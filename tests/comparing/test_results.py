import json
from pathlib import Path
from typing import Any

import pytest

from blogtune.common.errors import UserError
from blogtune.comparing.results import read_fitness
from tests.comparing.build import fitness


def test_what_the_judge_s_test_left_is_read(tmp_path: Path) -> None:
    path = tmp_path / "judge.json"
    path.write_text(json.dumps(fitness(blind_spots="echo").metrics()))
    assert read_fitness(path) == fitness(blind_spots="echo")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param({"fit": "perhaps"}, "fit: Input should be a valid boolean", id="wrong type"),
        pytest.param({"verdict": "good"}, "verdict: Extra inputs are not permitted", id="unknown"),
        pytest.param({"drop": {"echo": 1}}, "drop.echo.[key]: Input should be 'half'", id="kind"),
    ],
)
def test_another_content_names_the_field_and_the_remedy(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    path = tmp_path / "judge.json"
    path.write_text(json.dumps(fitness().metrics() | change))
    with pytest.raises(UserError) as caught:
        read_fitness(path)
    assert str(caught.value).startswith(f"{path}: {told}")
    assert str(caught.value).endswith("; run `dvc repro -f check_judge`")


def test_half_a_file_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "judge.json"
    path.write_text('{"fit": tr')
    with pytest.raises(UserError, match=r"judge.json: file: Invalid JSON.*check_judge`$"):
        read_fitness(path)


def test_before_the_first_run_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"judge.json: not there yet; run `make repro`"):
        read_fitness(tmp_path / "judge.json")
