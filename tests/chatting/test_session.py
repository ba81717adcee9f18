from pathlib import Path

import mlx.core as mx
import pytest

from blogtune.answering.params import AnswerParams
from blogtune.answering.systems import SYSTEMS, System
from blogtune.chatting import session
from blogtune.chatting.session import ask, load, systems
from blogtune.common.errors import UserError
from blogtune.models.loading import load_model
from blogtune.runtime.params import RuntimeParams

PARAMS = AnswerParams(split="test", max_tokens=8, batch_questions=4)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("base best", "MODELS: 'best' is no model; name some of: base finetuned fused"),
        ("  ", "MODELS: names no model; take of: base finetuned fused"),
        ("fused", "models/fused: not made yet; `make repro` makes it"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        systems(named)
    assert str(caught.value) == said


def test_models_are_named_once_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("base", "adapter", "fused"):
        (tmp_path / "models" / name).mkdir(parents=True)
    assert list(systems("fused base fused")) == ["fused", "base"]


def test_where_there_is_no_room_for_all_one_is_proposed(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "free_memory", lambda: 1)
    chosen = {"base": System(tiny_folder), "fused": System(tiny_folder)}
    runtime = RuntimeParams(dtype="float32", processes=1)
    with pytest.raises(UserError, match="talk to one at a time: MODELS=fused"):
        load(chosen, runtime)
    assert list(load({"base": chosen["base"]}, runtime)) == ["base"]


def test_each_answer_stands_behind_its_models_name(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model(tiny_folder, mx.float32)
    ask(dict.fromkeys(SYSTEMS, model), "Who stops?", PARAMS)
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines if line[:1].isalpha() and "  " in line]
    assert [name for name in names if name in SYSTEMS] == list(SYSTEMS)
