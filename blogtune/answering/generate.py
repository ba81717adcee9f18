"""Greedy answers to all questions, shared out among processes, in the order of the questions."""

from collections.abc import Mapping, Sequence

import mlx.core as mx
import numpy as np

from blogtune.answering.batch import questions_at_once
from blogtune.answering.decode import decode
from blogtune.answering.params import AnswerParams
from blogtune.answering.verify_draft import verify_drafts
from blogtune.answering.writing import Writing
from blogtune.common.errors import UserError
from blogtune.common.progress import progress
from blogtune.common.records import Answer, Pair
from blogtune.models.chat import Chat, open_chat
from blogtune.models.loading import LoadedModel

NO_ROW = -1


def answer_questions(
    model: LoadedModel,
    name: str,
    pairs: Sequence[Pair],
    params: AnswerParams,
    group: mx.distributed.Group,
    drafts: Mapping[str, str] | None = None,
) -> list[Answer]:
    """Answer each pair's question; `name` is the model's name in the records.

    An answer ends at a stop token of the model ("end"), or at `params.max_tokens` or the end of
    what the model reads ("length"). Raises UserError for a question that leaves no room for one.
    `drafts`, by the pairs' ids, are answers that this model may give too: the more of them it does,
    the sooner it is done. They change no answer.
    All processes of `group` come here with the same arguments, share the questions and return all.
    """
    if not pairs:
        raise UserError("no questions to answer", where=f"data/processed/{params.split}.jsonl")
    chat = open_chat(model.tokenizer)
    prompts = [chat.prompt(pair.question, pair.context) for pair in pairs]
    limits = [
        answer_limit(model, prompt, params.max_tokens, f"pair {pair.id}")
        for pair, prompt in zip(pairs, prompts, strict=True)
    ]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    processes = group.size()
    size = questions_at_once(model.network, params, max(map(len, prompts)), processes)
    mine = order[group.rank() :: processes]
    shape = (-(-len(pairs) // processes), 2 + params.max_tokens)
    rows = np.full(shape, NO_ROW, np.int32)
    most = len(pairs) * params.max_tokens
    quiet = group.rank() > 0
    shown = progress(desc=f"answer {name}", unit="tokens", total=most, scaled=True, quiet=quiet)
    with shown as bar:
        # Answers begin and end in bursts: only the mean speed so far tells what is left.
        bar.smoothing = 0

        def written(count: int) -> None:
            bar.update(min(processes * count, most - bar.n))

        drafted = [chat.answer((drafts or {}).get(pairs[index].id, ""))[:-1] for index in mine]
        answers = [Writing(prompts[index], limits[index]) for index in mine]
        if any(drafted):
            verify_drafts(model.network, answers, drafted, chat.stops, written)
        decode(model.network, answers, chat.stops, size, written)
    for row, index, answer in zip(rows, mine, answers, strict=False):
        row[: 2 + len(answer.tokens)] = [index, answer.stopped, *answer.tokens]
    everyones = np.asarray(mx.distributed.all_gather(mx.array(rows), group=group, stream=mx.cpu))
    kept = {int(row[0]): row for row in everyones if row[0] != NO_ROW}
    return [_record(pair, name, chat, kept[index]) for index, pair in enumerate(pairs)]


def answer_limit(model: LoadedModel, prompt: list[int], most: int, where: str) -> int:
    """How many tokens the answer may have, at `most`: behind its context a model writes junk.

    Raises UserError, which tells `where`, for a question that leaves no room for one.
    """
    if model.context is None:
        return most
    if len(prompt) >= model.context:
        raise UserError(
            f"its question has {len(prompt):,} tokens, but the model reads {model.context:,} with "
            "the answer",
            where=where,
            remedy="cut the question, take the pair out of the data, or choose another model",
        )
    return min(most, model.context - len(prompt))


def _record(pair: Pair, name: str, chat: Chat, row: "np.typing.NDArray[np.int32]") -> Answer:
    _, ended, *padded = (int(value) for value in row)
    tokens = [token for token in padded if token != NO_ROW]
    return Answer(
        id=pair.id,
        post=pair.post,
        question=pair.question,
        context=pair.context,
        reference=pair.answer,
        facts=pair.facts,
        model=name,
        answer=chat.decode(tokens),
        stop="end" if ended else "length",
        tokens=len(tokens),
    )
