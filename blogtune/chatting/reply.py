"""One answer, shown while it is written; the same that stage `answer` would write."""

from collections.abc import Callable

from blogtune.answering.decode import decode
from blogtune.answering.generate import answer_limit
from blogtune.answering.params import AnswerParams
from blogtune.answering.writing import Writing
from blogtune.models.chat import open_chat
from blogtune.models.loading import LoadedModel

# What a character of which a token is still to come is decoded to.
INCOMPLETE = "\ufffd"


def reply(
    model: LoadedModel, question: str, params: AnswerParams, show: Callable[[str], None]
) -> str:
    """Answer the question greedily, as if nothing was said before it, and return the answer.

    `show` gets the answer piece by piece, whole characters only; the pieces joined are the answer.
    Raises UserError for a question that leaves no room for one.
    """
    chat = open_chat(model.tokenizer)
    prompt = chat.prompt(question)
    limit = answer_limit(model, prompt, params.max_tokens, "the question")
    answer, shown = Writing(prompt, limit), ""

    def written(_: int) -> None:
        nonlocal shown
        text = chat.decode(answer.tokens)
        # Text that the next token may change waits for it.
        if text.startswith(shown) and not text.endswith(INCOMPLETE):
            show(text[len(shown) :])
            shown = text

    decode(model.network, [answer], chat.stops, 1, written)
    text = chat.decode(answer.tokens)
    show(text.removeprefix(shown))
    return text
