"""A stranger's chat template: rendered the same way every time, and read before it is relied on.

What a template is asked for here is its own text around a question and around a finished answer,
which training repeats and answering asks for:

    <|im_start|>user\nQUESTION<|im_end|>\n<|im_start|>assistant\n            the prompt
    ... ANSWER<|im_end|>\n                             `before`, the answer, `behind` and the end
"""

import re
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, tzinfo
from itertools import takewhile
from pathlib import Path
from typing import Any

from transformers.utils import chat_template_utils

from blogtune.common.errors import UserError

Messages = list[dict[str, str]]


# Llama 3 templates write today's date unless told one; Qwen 3 would think aloud first.
TEMPLATE_ARGUMENTS = {"date_string": "1 January 2026", "enable_thinking": False}
# What transformers calls the clock there.
CLOCK = "datetime"
QUESTION, ANSWER = "blogtune-question-stands-here", "blogtune-answer-stands-here"
OTHER = "Another one: where does it stand,\n\nand is all of it there? Ünd <so> [on]."
# A template that chooses between two things at random is taken in but once in 2^15 times.
RENDERED = 16
SECONDS = 20
EMPTY_THOUGHT = re.compile(r"<think>\s*</think>\s*$")


class _Clock(datetime):
    """For templates that ask for the time: no prompt depends on the day that it is asked on."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "_Clock":
        return cls(2026, 1, 1, tzinfo=tz)


@dataclass(frozen=True)
class Frame:
    """What the template writes around an answer.

    `header` ends the prompt, where a finished reply has one that the generation prompt has not.
    """

    prompt: str
    header: str
    before: str
    behind: str

    @property
    def text(self) -> str:
        return f"{self.prompt}{self.header}{self.before}{self.behind}"


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def render(tokenizer: Any, messages: Messages, *, generate: bool) -> str:
    """The conversation as the template writes it, with the generation prompt if wanted.

    Raises UserError where the template fails, whatever Jinja or Python say to it.
    """
    # transformers hands templates no function but its own, which asks this clock.
    clock = getattr(chat_template_utils, CLOCK)
    try:
        setattr(chat_template_utils, CLOCK, _Clock)
        return str(
            tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generate, **TEMPLATE_ARGUMENTS
            )
        )
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise _broken(tokenizer, f"its chat template fails: {reason}") from error
    finally:
        setattr(chat_template_utils, CLOCK, clock)


def read_frame(tokenizer: Any) -> Frame:
    """What stands around an answer. Raises UserError for a template that cannot be trained on."""
    asked = [user(QUESTION)]
    with _deadline(tokenizer):
        prompt = _steady(tokenizer, asked, generate=True)
        finished = _steady(
            tokenizer, [*asked, {"role": "assistant", "content": ANSWER}], generate=False
        )
        other = render(tokenizer, [user(OTHER)], generate=True)
    if QUESTION not in prompt:
        raise _broken(tokenizer, "its chat template leaves the question out of the prompt")
    if other != prompt.replace(QUESTION, OTHER):
        raise _broken(tokenizer, "its chat template writes questions otherwise than they are")
    if QUESTION not in finished:
        raise _broken(tokenizer, "its chat template leaves the question out once it is answered")
    opening, found, behind = finished.partition(ANSWER)
    if not found:
        raise _broken(tokenizer, "its chat template leaves the answer out of the conversation")
    lead = _lead(tokenizer, prompt, opening)
    header, before = (lead, "") if lead.strip() else ("", lead)
    return Frame(prompt, header, before, behind)


def template_file(tokenizer: Any) -> str:
    """The file that the template stands in, where it is known."""
    name = str(getattr(tokenizer, "name_or_path", "") or "")
    if not name or not Path(name).is_dir():
        return ""
    own = Path(name) / "chat_template.jinja"
    return str(own if own.exists() else Path(name) / "tokenizer_config.json")


def _steady(tokenizer: Any, messages: Messages, *, generate: bool) -> str:
    texts = {render(tokenizer, messages, generate=generate) for _ in range(RENDERED)}
    if len(texts) > 1:
        raise _broken(
            tokenizer,
            "its chat template writes something else each time (random numbers, the time)",
        )
    return texts.pop()


def _lead(tokenizer: Any, prompt: str, opening: str) -> str:
    """What a finished turn has between the prompt and the answer.

    A prompt may end with an empty thought that finished turns are without (Qwen3, told not to
    think): the model answers without a thought then, and that is what it is taught.
    """
    for start in (prompt, EMPTY_THOUGHT.sub("", prompt)):
        if opening.startswith(start):
            return opening[len(start) :]
    pairs = zip(prompt, opening, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    rest = prompt[same:]
    raise _broken(
        tokenizer,
        f"its chat template opens a reply with {rest[-60:]!r}, which a finished reply has not: "
        "answers as in the data are no replies to it",
    )


def _broken(tokenizer: Any, what: str) -> UserError:
    remedy = "choose another model, or mend the template"
    return UserError(what, where=template_file(tokenizer), remedy=remedy)


@contextmanager
def _deadline(tokenizer: Any) -> Generator[None]:
    """End a template that does not end by itself; only a process's main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(*_: object) -> None:
        raise _broken(tokenizer, f"its chat template takes more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
