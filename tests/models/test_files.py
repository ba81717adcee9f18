"""A stranger's model folder: no code of it is run, nothing is asked, what is wrong is named."""

import builtins
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from blogtune.answering.generate import answer_questions
from blogtune.answering.params import AnswerParams
from blogtune.common.errors import UserError
from blogtune.models.files import check_safetensors
from blogtune.models.loading import load_model, load_tokenizer
from blogtune.training.loop import train
from tests import tiny


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "base"))


def change(file: Path, **changes: Any) -> None:
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, **changes}))


def refusal(
    folder: Path, load: Callable[[Path], Any] = lambda folder: load_model(folder, None)
) -> str:
    with pytest.raises(UserError) as caught:
        load(folder)
    assert str(caught.value).startswith(f"{folder}: mlx-lm cannot load it: ")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{folder}: mlx-lm cannot load it: ")


@pytest.mark.parametrize("load", [load_tokenizer, lambda folder: load_model(folder, None)])
def test_a_tokenizer_from_another_repository_is_refused_and_nothing_asks(
    copy: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[[Path], Any]
) -> None:
    asked: list[str] = []

    def answer(prompt: str = "") -> str:
        asked.append(prompt)
        return "y"

    monkeypatch.setattr(builtins, "input", answer)
    change(
        copy / "tokenizer_config.json",
        tokenizer_class="EvilTok",
        auto_map={"AutoTokenizer": ["other/repo--evil.Tok", None]},
    )
    assert refusal(copy, load).startswith("tokenizer_config.json: ")
    assert not asked


def test_python_code_that_a_config_names_is_not_run(copy: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (copy / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    change(copy / "config.json", model_file="evil.py")
    assert refusal(copy).startswith("config.json: it names Python code to run")
    assert not ran.exists()


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("end", ["<|im_end|>", [1, "2"], -1, 1.5, True, {"a": 1}, 2**64])
def test_an_end_token_that_is_no_number_is_named(copy: Path, name: str, end: object) -> None:
    if not (copy / name).exists():
        (copy / name).write_text("{}")
    change(copy / name, eos_token_id=end)
    assert refusal(copy).startswith(f"{name}: eos_token_id is ")


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"num_attention_heads": 0}),
        ("config.json", {"num_attention_heads": 3}),
        ("config.json", {"num_key_value_heads": 3}),
        ("config.json", {"num_hidden_layers": 10**9}),
        ("config.json", {"hidden_size": 2**64}),
        ("config.json", {"vocab_size": 10**12}),
        ("config.json", {"head_dim": -1}),
        ("config.json", {"rope_scaling": {"rope_type": "abacus"}}),
        ("config.json", {"rope_theta": "many"}),
        ("config.json", {"quantization": {"group_size": 64}}),
        ("config.json", {"quantization": "4 bits"}),
        ("config.json", {"model_type": "switch_layers"}),
        ("config.json", {"model_type": ["llama"]}),
        ("tokenizer_config.json", {"chat_template_type": "no_such_module"}),
        ("tokenizer_config.json", {"tool_parser_type": "no_such_module"}),
        ("tokenizer_config.json", {"additional_special_tokens": 5}),
        ("tokenizer.json", {"model": {"type": "Abacus"}}),
        ("tokenizer.json", {"added_tokens": "none"}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_does_not_fit_is_one_line_with_its_file(
    copy: Path, file: str, changes: dict[str, Any]
) -> None:
    change(copy / file, **changes)
    told = "tokenizer_config.json" if file == "tokenizer.json" else file
    assert refusal(copy).startswith(f"{told}: ")


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_json_file_that_is_none_is_named(copy: Path, name: str, text: str) -> None:
    (copy / name).write_text(text)
    assert refusal(copy).startswith(f"{name}: ")


def header(entry: dict[str, Any] | bytes, length: int | None = None) -> bytes:
    text = entry if isinstance(entry, bytes) else json.dumps(entry).encode()
    size = len(text) if length is None else length
    return size.to_bytes(8, "little") + text + bytes(16)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567890",
        header({}, 2**63),
        header({}, 1000),
        header(b"[]"),
        header(b"{" * 5000),
        header({"a": 5}),
        header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 17]}}),
        header({"a": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}}),
        header({"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}),
        header({"a": {"dtype": "F32", "shape": [2**33, 0], "data_offsets": [0, 0]}}),
        header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}}),
        header({"a": {"dtype": "F32", "shape": [4.0], "data_offsets": [0, 16]}}),
        header({"a": {"dtype": "X9", "shape": [4], "data_offsets": [0, 16]}}),
        header({"a": {"dtype": "F32", "shape": [4]}}),
    ],
)
def test_weights_that_are_not_what_their_header_says_are_named(copy: Path, content: bytes) -> None:
    (copy / "model.safetensors").write_bytes(content)
    assert refusal(copy).startswith("model.safetensors: ")


def test_a_true_header_passes(copy: Path, tmp_path: Path) -> None:
    file = tmp_path / "some.safetensors"
    mx.save_safetensors(str(file), {"a": mx.zeros((2, 3), mx.bfloat16), "b": mx.array(1)})
    assert check_safetensors(file) == 2
    assert check_safetensors(copy / "model.safetensors") > 10


LONG = tiny.pair("long", "Why? " * 3000, "Because.")


def test_a_question_longer_than_the_models_context_is_refused(tiny_folder: Path) -> None:
    """The case question-longer-than-context: 512 positions, and it was answered with junk."""
    model = load_model(tiny_folder, mx.float32)
    assert model.context == 512
    params = AnswerParams(split="test", max_tokens=4, batch_questions=2)
    with pytest.raises(
        UserError, match=r"^pair long: its question has [\d,]+ tokens, but the mode"
    ):
        answer_questions(model, "base", [*tiny.facts(), LONG], params, tiny.ALONE)


def test_an_answer_ends_where_the_models_context_does(copy: Path) -> None:
    change(copy / "config.json", max_position_embeddings=40)
    model = load_model(copy, mx.float32)
    params = AnswerParams(split="test", max_tokens=64, batch_questions=2)
    answers = answer_questions(model, "base", tiny.facts(), params, tiny.ALONE)
    assert all(answer.stop == "end" or answer.tokens < 40 for answer in answers)
    assert any(answer.stop == "length" for answer in answers)


def test_training_on_more_than_the_models_context_is_refused(copy: Path, tmp_path: Path) -> None:
    change(copy / "config.json", max_position_embeddings=100)
    model = load_model(copy, mx.float32)
    pairs = [*tiny.facts(), tiny.pair("wide", "Why?", "Because. " * 40)]
    with pytest.raises(UserError) as caught:
        train(model, pairs, pairs, tiny.train_params(), tmp_path / "runs", tiny.ALONE)
    assert str(caught.value) == (
        "pair wide: 128 tokens, but the model reads 100; set train.max_sequence_tokens to 100 or "
        "less, or cut the question"
    )
