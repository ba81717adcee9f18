"""Speaks a model's chat template: a question in, token numbers out.

    <|im_start|>user\nWhat is the rank?<|im_end|>\n<|im_start|>assistant\n   the prompt
    The rank is ...<|im_end|>                                       the answer and its end

Training, answering, fusing and judging all come through here, so a model is asked as it was taught.
Prompt and answer together are the template's own text of the finished conversation, to its end.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from blogtune.common.errors import UserError
from blogtune.common.records import Message
from blogtune.models.ordinary import Ordinary
from blogtune.models.template import (
    ANSWER,
    Frame,
    Messages,
    read_frame,
    render,
    template_file,
    user,
)


@dataclass(frozen=True)
class Chat:
    """A tokenizer's chat template, what it writes around an answer, and the token that ends one."""

    tokenizer: Any
    end: int
    frame: Frame

    def prompt(self, question: str, context: Sequence[Message] = ()) -> list[int]:
        """The tokens up to and including the template's own generation prompt.

        `context` is what was said before the question: a system text, earlier exchanges.
        """
        return self.opening([*(turn.model_dump() for turn in context), user(question)])

    def opening(self, messages: Messages, reply: str = "") -> list[int]:
        """The tokens of the messages, the generation prompt and the beginning of a reply.

        Where the template has no place for a system message, it opens the first user message.
        """
        taken = [{**each, "content": self._words.take_out(each["content"])} for each in messages]
        return self._words.encode(f"{self._text(taken)}{self.frame.header}{reply}")

    def answer(self, text: str) -> list[int]:
        """The answer's tokens with the end token, as they are behind a prompt."""
        words = f"{self.frame.before}{self._words.take_out(text)}{self.frame.behind}"
        behind = self._words.encode(f"{self.frame.prompt}{self.frame.header}{words}")
        if behind[: len(self._prompt)] == self._prompt:
            return [*behind[len(self._prompt) :], self.end]
        # The prompt's last token has taken in letters of the answer, which no prompt ends with.
        return [*self._words.encode(words), self.end]

    @property
    def stops(self) -> list[int]:
        """Every token at which an answer ends."""
        return sorted({self.end, *self.tokenizer.eos_token_ids})

    def decode(self, tokens: list[int]) -> str:
        """The text of generated tokens, without what ends it and outer white space."""
        text = str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()
        return text.removesuffix(self.frame.behind.strip()).strip()

    @cached_property
    def _words(self) -> Ordinary:
        return Ordinary(self.tokenizer, self.frame.text)

    @cached_property
    def _prompt(self) -> list[int]:
        return self._words.encode(f"{self.frame.prompt}{self.frame.header}")

    def _text(self, messages: Messages) -> str:
        first, *others = messages
        if first["role"] == "system" and not self._has_system_role:
            following, *others = others
            first = user(f"{first['content']}\n\n{following['content']}")
        return render(self.tokenizer, [first, *others], generate=True)

    @cached_property
    def _has_system_role(self) -> bool:
        """Some templates refuse a system message, others leave it out."""
        messages = [{"role": "system", "content": ANSWER}, user("?")]
        try:
            return ANSWER in render(self.tokenizer, messages, generate=True)
        except UserError:
            return False


def open_chat(tokenizer: Any) -> Chat:
    """Read the template: what it writes around an answer, and the token behind that, its end.

    Raises UserError for a model without a chat template, and for a template that fails, that leaves
    words out, that is not the same each time, or whose replies begin as no answer of the data does.
    """
    if not getattr(tokenizer, "has_chat_template", False):
        raise UserError(
            "the model has no chat template", remedy="choose an instruction-tuned model"
        )
    frame = read_frame(tokenizer)
    behind, end = _end(tokenizer, frame.behind)
    return Chat(tokenizer, end, replace(frame, behind=behind))


def _end(tokenizer: Any, behind: str) -> tuple[str, int]:
    """What stands before the end token, mostly nothing, and the token.

    The model's own end where the template writes none.
    """
    special = [
        added.content
        for number, added in tokenizer.added_tokens_decoder.items()
        if _is_special(tokenizer, number)
    ]
    found = re.search("|".join(map(re.escape, sorted(special, key=len, reverse=True))), behind)
    if special and found:
        return behind[: found.start()], int(tokenizer.convert_tokens_to_ids(found[0]))
    if tokenizer.eos_token_id is None:
        raise UserError(
            "no token ends an answer: the tokenizer names no eos_token, and its chat template "
            "writes none behind an answer",
            where=template_file(tokenizer),
            remedy="name one there, or choose another model",
        )
    return "", int(tokenizer.eos_token_id)


def _is_special(tokenizer: Any, token: int) -> bool:
    """Also what only the tokenizer's file marks and no setting names, such as Phi-3's <|end|>."""
    added = tokenizer.added_tokens_decoder.get(token)
    return token in tokenizer.all_special_ids or (added is not None and bool(added.special))
