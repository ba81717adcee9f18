from pathlib import Path

import pytest

from blogtune.common.errors import UserError
from blogtune.exporting.template import adds_start, ollama_template
from tests.exporting.templates import TEMPLATES, UNKNOWN, open_template


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_known_template_is_told_by_its_family(name: str, tmp_path: Path) -> None:
    template = ollama_template(open_template(tmp_path, TEMPLATES[name]), adds_start=False)
    assert template.family == name.split(" with")[0]
    assert template.stops


def test_a_default_system_prompt_is_told_apart(tmp_path: Path) -> None:
    chat = open_template(tmp_path, TEMPLATES["ChatML with a default"])
    assert ollama_template(chat, adds_start=False).system == "You are {{helpful}}."
    chat = open_template(tmp_path, TEMPLATES["Llama 3"])
    assert ollama_template(chat, adds_start=False).system is None


def test_a_template_of_no_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="blogtune cannot write the model's chat template for Ollama"
    ):
        ollama_template(open_template(tmp_path, UNKNOWN), adds_start=False)


def test_a_template_that_drops_the_history_is_refused(tmp_path: Path) -> None:
    forgets = "{% set messages = messages[-2:] %}" + TEMPLATES["Phi-3"]
    with pytest.raises(UserError, match="cannot write the model's chat template"):
        ollama_template(open_template(tmp_path, forgets), adds_start=False)


def test_the_first_token_is_left_to_a_server_that_writes_it(tmp_path: Path) -> None:
    chat = open_template(tmp_path, TEMPLATES["Gemma"])
    chat.tokenizer._tokenizer.bos_token = "<bos>"
    assert ollama_template(chat, adds_start=False).text.startswith("<bos>")
    assert ollama_template(chat, adds_start=True).text.startswith("{{ range")


@pytest.mark.parametrize(("config", "expected"), [({}, False), ({"add_bos_token": True}, True)])
def test_the_tokenizer_says_who_writes_the_first_token(config: dict, expected: bool) -> None:
    assert adds_start(config) is expected
