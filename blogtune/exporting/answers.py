"""The served model's answers to the test questions, and how far it chooses as the fused one does.

Teacher-forced: every token that the server chose is its most likely one behind the question and the
tokens before it. The fused model in MLX reads the same text, and the share of tokens that it would
have chosen too is the top-1 agreement.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from blogtune.answering.params import AnswerParams
from blogtune.common.errors import UserError
from blogtune.common.progress import progress
from blogtune.common.records import Answer, Pair
from blogtune.exporting.server import OllamaServer, Reply
from blogtune.exporting.source import Source
from blogtune.judging.ollama import LEAST_CONTEXT
from blogtune.models.chat import Chat
from blogtune.models.loading import LoadedModel
from blogtune.ollama.workers import in_parallel

SERVED = "served"
# Stands for bytes that are no letter by themselves.
UNREADABLE = "\ufffd"


@dataclass(frozen=True)
class Agreement:
    """Shares of tokens that the fused model chooses too: of all `positions`, of the first ones.

    `unread`: answers whose text does not become the server's tokens again.
    """

    positions: int
    top1: float
    first_token: float
    unread: int


def ask_all(
    server: OllamaServer, source: Source, pairs: Sequence[Pair], params: AnswerParams
) -> list[Reply]:
    """The server's replies to the questions, in their order.

    Raises UserError where question and answer do not fit into the model's context, and where the
    server reads a question as another number of tokens than we do.
    """
    sizes = [len(source.chat.prompt(pair.question, pair.context)) for pair in pairs]
    context = _context(max(sizes) + params.max_tokens, source)
    replies: dict[int, Reply] = {}
    with server.model().client() as client:

        def ask(index: int) -> Reply:
            pair = pairs[index]
            return server.ask(client, pair.question, params.max_tokens, context, pair.context)

        done = in_parallel(ask, range(len(pairs)), server.params.workers)
        for index, reply in progress(done, desc="ask", unit="questions", total=len(pairs)):
            if reply.prompt_tokens not in (None, sizes[index]):
                raise UserError(
                    f"question {pairs[index].id} has {reply.prompt_tokens} tokens on the server "
                    f"and {sizes[index]} here: the server reads it differently, and its answers "
                    "would not be this model's",
                    where=f"ollama:{server.params.name}",
                )
            replies[index] = reply
    return [replies[index] for index in range(len(pairs))]


def records(pairs: Sequence[Pair], replies: Sequence[Reply]) -> list[Answer]:
    """The replies as the pipeline's answers."""
    return [
        Answer(
            id=pair.id,
            post=pair.post,
            question=pair.question,
            context=pair.context,
            reference=pair.answer,
            model=SERVED,
            answer=reply.text.strip(),
            stop=reply.stop,
            tokens=reply.tokens,
        )
        for pair, reply in zip(pairs, replies, strict=True)
    ]


def agreement(
    model: LoadedModel, chat: Chat, pairs: Sequence[Pair], replies: Sequence[Reply]
) -> Agreement:
    """How often the fused model's most likely token is the one that the server chose.

    Raises UserError where no answer can be read token by token.
    """
    same: list[np.ndarray[tuple[int], np.dtype[np.bool_]]] = []
    unread = 0
    both = list(zip(pairs, replies, strict=True))
    for pair, reply in progress(both, desc="agreement", unit="answers"):
        answer = _read(chat, reply)
        if answer is None:
            unread += 1
            continue
        # Which end token the server stopped at is not told: any of them is the same choice.
        chosen = np.array(answer if reply.stop == "end" else answer[:-1], np.int64)
        if not len(chosen):
            unread += 1
            continue
        prompt = chat.prompt(pair.question, pair.context)
        logits = model.network(mx.array([[*prompt, *chosen[:-1].tolist()]]))[0, len(prompt) - 1 :]
        ours = np.array(mx.argmax(logits, axis=-1)).astype(np.int64)
        ours[np.isin(ours, chat.stops)] = chat.end
        same.append(ours == chosen)
    if not same:
        raise UserError(
            "no served answer can be compared token by token", remedy="look at data/answers"
        )
    every = np.concatenate(same)
    first = float(np.mean([bool(each[0]) for each in same]))
    return Agreement(len(every), float(every.mean()), first, unread)


def _read(chat: Chat, reply: Reply) -> list[int] | None:
    """The tokens that the server chose, with the end token; None where the text is read otherwise.

    SentencePiece puts a space before a text, which the server leaves there.
    """
    texts = (reply.text, reply.text.removeprefix(" "))
    answers = (chat.answer(text) for text in texts)
    return next((answer for answer in answers if _same_tokens(chat, answer[:-1], reply)), None)


def _same_tokens(chat: Chat, tokens: Sequence[int], reply: Reply) -> bool:
    """Whether these are the server's tokens: as many, and each with the same text.

    A model may write "d" and "es" where its tokenizer would read "de" and "s". White space at the
    ends of a piece, and bytes of a letter that is divided among pieces, are told in unlike ways.
    """
    if len(tokens) != reply.tokens or len(reply.pieces) != reply.tokens:
        return False
    pieces = (chat.tokenizer.decode([token]) for token in tokens)
    return all(map(_is_same, pieces, reply.pieces))


def _is_same(one: str, other: str) -> bool:
    return one.replace(UNREADABLE, "").strip() == other.replace(UNREADABLE, "").strip()


def _context(needed: int, source: Source) -> int:
    """Tokens of context for the longest question with its answer: a power of two."""
    if source.context is not None and needed > source.context:
        raise UserError(
            f"the longest question and answer.max_tokens are {needed} tokens together, and the "
            f"model's context is {source.context}",
            remedy="lower answer.max_tokens",
        )
    return max(LEAST_CONTEXT, 1 << (needed - 1).bit_length())
