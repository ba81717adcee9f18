"""Speaks a model's chat template: a question in, token numbers out.

    <|im_start|>user\nWhat is the rank?<|im_end|>\n<|im_start|>assistant\n   the prompt
    The rank is ...<|im_end|>                                       the answer and its end

Training, answering, fusing and judging all come through here, so a model is asked as it was taught.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from blogtune.common.errors import UserError
from blogtune.common.records import Message

# Llama 3 templates write today's date unless told one; Qwen 3 would think aloud first.
TEMPLATE_ARGUMENTS = {"date_string": "1 January 2026", "enable_thinking": False}
MARK = "blogtune-answer-stands-here"


@dataclass(frozen=True)
class Chat:
    """A tokenizer's chat template and the token that ends an answer in it."""

    tokenizer: Any
    end: int

    def prompt(self, question: str, context: Sequence[Message] = ()) -> list[int]:
        """The tokens up to and including the template's own generation prompt.

        `context` is what was said before the question: a system text, earlier exchanges.
        """
        return self.opening([*(turn.model_dump() for turn in context), _user(question)])

    def opening(self, messages: list[dict[str, str]], reply: str = "") -> list[int]:
        """The tokens of the messages, the generation prompt and the beginning of a reply.

        Where the template has no place for a system message, it opens the first user message.
        """
        return self._encode(self._text(messages) + reply)

    def answer(self, text: str) -> list[int]:
        """The answer's tokens with the end token."""
        return [*self._encode(text), self.end]

    @property
    def stops(self) -> list[int]:
        """Every token at which an answer ends."""
        return sorted({self.end, *self.tokenizer.eos_token_ids})

    def decode(self, tokens: list[int]) -> str:
        """The text of generated tokens, without special tokens and outer white space."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()

    def _text(self, messages: list[dict[str, str]]) -> str:
        first, *others = messages
        if first["role"] == "system" and not self._has_system_role():
            following, *others = others
            first = _user(f"{first['content']}\n\n{following['content']}")
        return _render(self.tokenizer, [first, *others], generate=True)

    def _has_system_role(self) -> bool:
        """Some templates refuse a system message, others leave it out."""
        messages = [{"role": "system", "content": MARK}, _user("?")]
        try:
            return MARK in _render(self.tokenizer, messages, generate=True)
        except TemplateError:
            return False

    def _encode(self, text: str) -> list[int]:
        # It would warn of long texts, of which only a part may be read later.
        return list(self.tokenizer.encode(text, add_special_tokens=False, verbose=False))


def open_chat(tokenizer: Any) -> Chat:
    """Find the template's end token: the first token behind an answer.

    Raises UserError for a model without a chat template.
    """
    if not getattr(tokenizer, "has_chat_template", False):
        raise UserError(
            "the model has no chat template", remedy="choose an instruction-tuned model"
        )
    text = _render(tokenizer, [_user("?"), {"role": "assistant", "content": MARK}], generate=False)
    behind = tokenizer.encode(text.partition(MARK)[2].lstrip(), add_special_tokens=False)
    end = behind[0] if behind and _is_special(tokenizer, behind[0]) else None
    return Chat(tokenizer, tokenizer.eos_token_id if end is None else end)


def _is_special(tokenizer: Any, token: int) -> bool:
    """Also what only the tokenizer's file marks and no setting names, such as Phi-3's <|end|>."""
    added = tokenizer.added_tokens_decoder.get(token)
    return token in tokenizer.all_special_ids or (added is not None and bool(added.special))


def _user(question: str) -> dict[str, str]:
    return {"role": "user", "content": question}


def _render(tokenizer: Any, messages: list[dict[str, str]], *, generate: bool) -> str:
    return str(
        tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=generate, **TEMPLATE_ARGUMENTS
        )
    )
