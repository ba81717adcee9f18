"""How likely a network finds an answer behind a question, and how much of that the question brings.

An answer's own wording makes it more or less likely, whatever was asked. By how much the question
raises its likelihood is pointwise mutual information (Holtzman et al. 2021, "Surface form
competition", arXiv 2104.08315). Both are for each token, because answers differ in length.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
from mlx import nn

from blogtune.common.errors import UserError
from blogtune.common.progress import progress
from blogtune.common.records import Context
from blogtune.models.chat import Chat
from blogtune.models.reading import read_answers
from blogtune.models.template import QUESTION
from blogtune.runtime.device import exact_losses


class Question(NamedTuple):
    """A question, what was said before it, and the answers to be weighed behind it."""

    question: str
    candidates: Sequence[str]
    context: Context = ()


class Score(NamedTuple):
    """Mean log-likelihoods of an answer's tokens, its end token among them, in nats a token."""

    asked: float  # behind the question
    unasked: float  # behind an empty one

    @property
    def pmi(self) -> float:
        """What the question adds: pointwise mutual information, in nats a token."""
        return self.asked - self.unasked


def score(
    network: Any,
    chat: Chat,
    questions: Sequence[Question],
    *,
    limit: int | None = None,
    desc: str = "likelihoods",
    quiet: bool = False,
) -> list[list[Score | None]]:
    """Return the score of each question's candidates, in their order.

    The prompts are those of training and answering. None: with its prompt the candidate has more
    than `limit` tokens, which is what the network reads at most. The network is in evaluation mode,
    whether it is a whole model or one in training.
    """
    answers = {text: chat.answer(text) for each in questions for text in each.candidates}
    groups = [_fitting(chat, each, answers, limit) for each in questions]
    alone: dict[Context, dict[str, float]] = {}
    for each, texts in zip(questions, groups, strict=True):
        # Computed once for each text, however many questions have it as a candidate.
        alone.setdefault(each.context, {}).update(dict.fromkeys(texts, 0.0))
    total = sum(map(len, groups)) + sum(map(len, alone.values()))
    with progress(desc=desc, unit="answers", total=total, quiet=quiet) as bar, exact_losses():

        def read(prompt: list[int], texts: Sequence[str]) -> dict[str, float]:
            tokens = [answers[text] for text in texts]
            found = _log_likelihoods(network, prompt, tokens, bar.update)
            return {texts[place]: value for place, value in found}

        unasked = {
            context: read(empty_prompt(chat, context)[0], [*texts])
            for context, texts in alone.items()
        }
        asked = [
            read(chat.prompt(each.question, each.context), texts)
            for each, texts in zip(questions, groups, strict=True)
        ]
    return [
        [
            Score(behind[text], unasked[each.context][text]) if text in behind else None
            for text in each.candidates
        ]
        for each, behind in zip(questions, asked, strict=True)
    ]


def empty_prompt(chat: Chat, context: Context = ()) -> tuple[list[int], str]:
    """The prompt of an empty question, and what it is made of.

    "template": the chat template with an empty user message. "reply header": where the template
    refuses such a message, what it writes between a question and its answer, and no more.
    """
    try:
        return chat.prompt("", context), "template"
    except UserError:
        header = chat.frame.prompt.partition(QUESTION)[2] + chat.frame.header
        tokens: list[int] = chat.tokenizer.encode(header, add_special_tokens=False)
        return tokens or [chat.end], "reply header"


def _fitting(
    chat: Chat, each: Question, answers: Mapping[str, list[int]], limit: int | None
) -> list[str]:
    """The candidates that the network can read behind the question, each once."""
    # An empty question is shorter than any, unless the template treats it in a way of its own.
    prompts = chat.prompt(each.question, each.context), empty_prompt(chat, each.context)[0]
    longest = max(map(len, prompts))
    texts = dict.fromkeys(each.candidates)
    return [text for text in texts if limit is None or longest + len(answers[text]) <= limit]


def _log_likelihoods(
    network: Any,
    prompt: list[int],
    answers: Sequence[list[int]],
    done: Callable[[], object],
) -> Iterator[tuple[int, float]]:
    """Yield (place, mean log-likelihood of the answer's tokens); the prompt is read once."""
    # What follows an answer's last token, its end, is of no interest.
    read = read_answers(network, [prompt] * len(answers), [each[:-1] for each in answers])
    for place, logits in read:
        targets = mx.array(answers[place])
        loss = nn.losses.cross_entropy(logits, targets, reduction="sum")
        yield place, -float(loss) / len(answers[place])
        done()
