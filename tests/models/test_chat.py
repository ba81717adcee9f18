import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.utils import load_tokenizer

from blogtune.common.errors import UserError
from blogtune.models.chat import Chat, open_chat
from blogtune.models.loading import load_model
from tests import tiny

# Phi-3's manner: no word about the role, the end token bare.
BARE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>' }}{% endif %}"
)
# The end token on a line of its own.
APART = tiny.CHATML.replace("<|im_end|>", "\n<|im_end|>")
# An older manner: nothing but words.
WORDS = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
# Some templates say whose answer it is, and when.
DATED = "{{ date_string }}{{ enable_thinking }}" + tiny.CHATML
TEMPLATES = {"chatml": tiny.CHATML, "bare": BARE, "words": WORDS}


def tokenizer(folder: Path, template: str | None) -> Any:
    tiny.write_tokenizer(folder, template)
    return load_tokenizer(folder)


def chat(folder: Path, template: str) -> Chat:
    return open_chat(tokenizer(folder, template))


def text(chat: Chat, tokens: list[int]) -> str:
    return str(chat.tokenizer.decode(tokens))


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        pytest.param(
            tiny.CHATML,
            "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
            id="chatml",
        ),
        pytest.param(BARE, "<|im_start|>Why?<|im_end|><|im_start|>", id="bare"),
        pytest.param(WORDS, "user: Why?\nassistant: ", id="words"),
    ],
)
def test_a_prompt_ends_with_the_templates_own_generation_prompt(
    tmp_path: Path, template: str, prompt: str
) -> None:
    opened = chat(tmp_path, template)
    assert text(opened, opened.prompt("Why?")) == prompt


@pytest.mark.parametrize(
    ("template", "end"),
    [
        pytest.param(tiny.CHATML, tiny.END, id="template's end token"),
        pytest.param(BARE, tiny.END, id="nothing behind it"),
        pytest.param(APART, f"\n{tiny.END}", id="space before it"),
        pytest.param(WORDS, tiny.STOP, id="template without one: end of sequence"),
    ],
)
def test_an_answer_ends_with_the_end_token(tmp_path: Path, template: str, end: str) -> None:
    opened = chat(tmp_path, template)
    assert text(opened, opened.answer("Because.")) == f"Because.{end}"
    assert opened.answer("Because.")[-1] == opened.end


def test_an_end_token_that_only_the_tokenizers_file_marks_is_found(tmp_path: Path) -> None:
    """Phi-3's own settings name <|endoftext|> alone, and answers ended with that instead."""
    tiny.write_tokenizer(tmp_path, BARE)
    file = tmp_path / "tokenizer_config.json"
    values = json.loads(file.read_text())
    del values["additional_special_tokens"]
    file.write_text(json.dumps(values))
    opened = open_chat(load_tokenizer(tmp_path))
    assert text(opened, opened.answer("Because.")) == f"Because.{tiny.END}"
    assert opened.decode(opened.answer("Because.")) == "Because."


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_prompt_and_answer_together_are_what_the_template_makes_of_both(
    tmp_path: Path, template: str
) -> None:
    opened = chat(tmp_path, template)
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    whole = opened.tokenizer.apply_chat_template(turns, tokenize=False)
    ours = text(opened, [*opened.prompt("Why?"), *opened.answer("Because.")[:-1]])
    assert str(whole).startswith(ours)


def test_the_models_own_end_stops_an_answer_too(tmp_path: Path) -> None:
    opened = chat(tmp_path, tiny.CHATML)
    names = [opened.tokenizer.convert_ids_to_tokens(token) for token in opened.stops]
    assert sorted(names) == sorted([tiny.END, tiny.STOP])


def test_what_a_template_may_ask_for_is_the_same_every_day(tmp_path: Path) -> None:
    opened = chat(tmp_path, DATED)
    assert text(opened, opened.prompt("Why?")).startswith("1 January 2026False")


def test_decoding_leaves_out_special_tokens_and_outer_space(tmp_path: Path) -> None:
    opened = chat(tmp_path, tiny.CHATML)
    assert opened.decode(opened.answer("\n The rank.\n ")) == "The rank."


def test_a_model_without_a_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        open_chat(tokenizer(tmp_path, None))
    assert str(caught.value) == (
        "the model has no chat template; choose an instruction-tuned model"
    )


def test_a_loaded_model_can_be_spoken_to(tiny_folder: Path) -> None:
    opened = open_chat(load_model(tiny_folder, mx.float32).tokenizer)
    assert opened.decode(opened.prompt("Wörld?")) == "user\nWörld?\nassistant"


RULES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
# Gemma's manner, and that of some older templates.
REFUSING = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
DEAF = tiny.CHATML.replace("messages %}", "messages if message['role'] != 'system' %}")


def test_an_opening_is_the_messages_and_how_the_reply_begins(tmp_path: Path) -> None:
    opened = chat(tmp_path, tiny.CHATML)
    assert text(opened, opened.opening(RULES, '{"score": ')) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
        '<|im_start|>assistant\n{"score": '
    )


@pytest.mark.parametrize(
    "template",
    [pytest.param(REFUSING + tiny.CHATML, id="refused"), pytest.param(DEAF, id="left out")],
)
def test_a_template_without_a_system_role_has_its_text_in_the_question(
    tmp_path: Path, template: str
) -> None:
    opened = chat(tmp_path, template)
    assert text(opened, opened.opening(RULES)) == (
        "<|im_start|>user\nBe brief.\n\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    )
