"""A model's chat template in Ollama's language, and the proof that it is the same one.

What stands around a user's and an assistant's words is known for five families; what stands before
the first of them (the token of the beginning, a system prompt, a date) and behind the last is read
off the model's own template. The parts put together must then give what that template gives for a
conversation, or the model is refused.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from blogtune.common.errors import UserError
from blogtune.models.chat import Chat
from blogtune.models.template import render as render_template

Render = Callable[..., str]
SYSTEM, FIRST, REPLY, SECOND = "SYSTEMWORDS", "FIRSTWORDS", "REPLYWORDS", "SECONDWORDS"


@dataclass(frozen=True)
class Turns:
    """What stands before and behind the words of a user and of an assistant."""

    user: tuple[str, str]
    assistant: tuple[str, str]


_HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
FAMILIES = {
    "ChatML": Turns(
        ("<|im_start|>user\n", "<|im_end|>\n"), ("<|im_start|>assistant\n", "<|im_end|>\n")
    ),
    "Llama 3": Turns(
        (_HEADER.format("user"), "<|eot_id|>"), (_HEADER.format("assistant"), "<|eot_id|>")
    ),
    "Phi-3": Turns(("<|user|>\n", "<|end|>\n"), ("<|assistant|>\n", "<|end|>\n")),
    "Phi-4-mini": Turns(("<|user|>", "<|end|>"), ("<|assistant|>", "<|end|>")),
    "Gemma": Turns(
        ("<start_of_turn>user\n", "<end_of_turn>\n"), ("<start_of_turn>model\n", "<end_of_turn>\n")
    ),
    "Mistral": Turns(("[INST] ", " [/INST]"), (" ", "</s>")),
    "Mistral 7B v0.3": Turns(("[INST] ", "[/INST]"), (" ", "</s>")),
}


@dataclass(frozen=True)
class OllamaTemplate:
    """What Ollama is told of the chat template: its family, text, system prompt, stop strings."""

    family: str
    text: str
    system: str | None
    stops: list[str]


@dataclass(frozen=True)
class _Parts:
    """What stands before the first user turn, without and with a system prompt; and at the end.

    `system` is None where the template has no place for one: it then opens the first user turn, as
    `Chat.opening` does it.
    """

    head: str
    system: tuple[str, str] | None
    generation: str


def ollama_template(chat: Chat, *, adds_start: bool) -> OllamaTemplate:
    """The chat template for Ollama; `adds_start`: the server writes the first token (BOS) itself.

    Raises UserError where the template is of no family that is known here.
    """

    def render(*words: tuple[str, str]) -> str:
        messages = [{"role": role, "content": content} for role, content in words]
        return render_template(chat.tokenizer, messages, generate=True)

    for family, turns in FAMILIES.items():
        parts = _parts(render, turns)
        if parts is not None:
            start = getattr(chat.tokenizer, "bos_token", None) if adds_start else None
            parts = _without(parts, start or "")
            turns, parts = _as_read(chat.tokenizer, turns, parts)
            stops = [str(chat.tokenizer.convert_ids_to_tokens(stop)) for stop in chat.stops]
            return OllamaTemplate(family, _go(turns, parts), _default_system(parts), stops)
    known = ", ".join(FAMILIES)
    raise UserError(
        f"blogtune cannot write the model's chat template for Ollama (it can: {known})",
        remedy="add its turns to FAMILIES in blogtune/exporting/template.py, or choose another "
        "base model",
    )


def _parts(render: Render, turns: Turns) -> _Parts | None:
    """The parts of a template of this family; None where it is of another."""
    user, assistant = turns.user, turns.assistant
    first = f"{user[0]}{FIRST}{user[1]}"
    head, found, generation = render(("user", FIRST)).partition(first)
    if not found:
        return None
    second = f"{assistant[0]}{REPLY}{assistant[1]}{user[0]}{SECOND}{user[1]}"
    conversation = (("user", FIRST), ("assistant", REPLY), ("user", SECOND))
    if render(*conversation) != f"{head}{first}{second}{generation}":
        return None
    return _Parts(head, _system(render, first, generation), generation)


def _system(render: Render, first: str, generation: str) -> tuple[str, str] | None:
    try:
        text = render(("system", SYSTEM), ("user", FIRST))
    except UserError:
        return None
    before, found, after = text.removesuffix(f"{first}{generation}").partition(SYSTEM)
    return (before, after) if found and FIRST not in after else None


def _without(parts: _Parts, start: str) -> _Parts:
    system = parts.system and (parts.system[0].removeprefix(start), parts.system[1])
    return _Parts(parts.head.removeprefix(start), system, parts.generation)


def _as_read(tokenizer: Any, turns: Turns, parts: _Parts) -> tuple[Turns, _Parts]:
    """The same without white space behind those tokens that swallow it (Phi-3's): Ollama keeps it.

    Only what the model never reads is left out.
    """
    added = tokenizer.added_tokens_decoder.values()
    swallow = "|".join(re.escape(token.content) for token in added if token.rstrip)

    def read(*texts: str) -> tuple[str, ...]:
        return tuple(re.sub(rf"({swallow})\s+", r"\1", text) for text in texts)

    if not swallow:
        return turns, parts
    user, user_end, assistant, assistant_end = read(*turns.user, *turns.assistant)
    head, generation = read(parts.head, parts.generation)
    system = None
    if parts.system:
        before, after = read(*parts.system)
        system = (before, after)
    return Turns((user, user_end), (assistant, assistant_end)), _Parts(head, system, generation)


def _default_system(parts: _Parts) -> str | None:
    """The system prompt that the template writes where none is given."""
    if parts.system is None:
        return None
    before, after = parts.system
    inner = parts.head.removeprefix(before).removesuffix(after)
    return inner if inner and f"{before}{inner}{after}" == parts.head else None


def _go(turns: Turns, parts: _Parts) -> str:
    """The template in Go's language, as Ollama executes it on .System and .Messages."""
    head, generation = _literal(parts.head), _literal(parts.generation)
    (user, user_end), (assistant, assistant_end) = (
        (_literal(before), _literal(after)) for before, after in (turns.user, turns.assistant)
    )
    opening = ""
    if parts.system:
        before, after = map(_literal, parts.system)
        head = (
            f"{{{{ if .System }}}}{before}{{{{ .System }}}}{after}{{{{ else }}}}{head}{{{{ end }}}}"
        )
    else:
        # A system message is the first, and so the first question the second.
        opening = "{{ if and $.System (eq $i 1) }}{{ $.System }}\n\n{{ end }}"
    return (
        f"{head}{{{{ range $i, $_ := .Messages }}}}"
        "{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        f'{{{{ if eq .Role "user" }}}}{user}{opening}{{{{ .Content }}}}{user_end}'
        f"{{{{ if $last }}}}{generation}{{{{ end }}}}"
        f'{{{{ else if eq .Role "assistant" }}}}{assistant}{{{{ .Content }}}}'
        f"{{{{ if not $last }}}}{assistant_end}{{{{ end }}}}"
        "{{ end }}{{ end }}"
    )


def _literal(text: str) -> str:
    """Text of the model's that stands in a Go template as itself."""
    return text.replace("{{", '{{ "{{" }}')


def adds_start(tokenizer_config: dict[str, Any]) -> bool:
    """Whether a model that Ollama imports from these files gets its first token from the server.

    Ollama writes `add_bos_token` of tokenizer_config.json into its file, false where it is missing.
    """
    return bool(tokenizer_config.get("add_bos_token", False))
