"""Greedy answers from mlx-lm's continuous batching: sorted by length inside, in order outside."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import make_prompt_cache

from blogtune.answering.drafts import circle, follow
from blogtune.answering.params import AnswerParams
from blogtune.common.errors import UserError
from blogtune.common.progress import progress
from blogtune.common.records import Answer, Pair
from blogtune.models.chat import Chat, open_chat
from blogtune.models.loading import LoadedModel
from blogtune.models.prefix import common_prefix, read
from blogtune.models.reading import fitting

NO_ROW = -1
# To begin with some answers costs a pass over all weights, however few they are: they wait until
# this part of a batch is free,
REFILLED = 4
# and begin together, so many tokens of their questions at once.
READ_TOKENS = 2048
# A pass for few tokens reads all weights all the same, which takes as long as so many tokens more
# (measured: 75 ms for 3, 180 for 75).
PASS = 50


@dataclass
class _Answer:
    """An answer as far as it is written, without a stop token."""

    prompt: list[int]
    limit: int
    tokens: list[int] = field(default_factory=list)
    stopped: bool = False

    @property
    def text(self) -> list[int]:
        """What the model has read when it goes on."""
        return [*self.prompt, *self.tokens]

    @property
    def left(self) -> int:
        """How many tokens may follow."""
        return 0 if self.stopped else self.limit - len(self.tokens)

    def add(self, tokens: Sequence[int], *, stopped: bool) -> int:
        """How much of the limit that takes; the end takes what is left of it."""
        before = self.left
        self.tokens += tokens
        self.stopped = stopped
        return before - self.left


class Greedy:
    """A network of which only the most likely next token is asked.

    BatchGenerator computes the probability of every token of the vocabulary at each step, a fifth
    of the time on a CPU. Here it gets one logit, and its sampler what was chosen from all.
    """

    def __init__(self, network: Any) -> None:
        self.network = network
        self.chosen = mx.array([])

    def __call__(self, tokens: mx.array, cache: Any) -> mx.array:
        logits = self.network(tokens, cache=cache)
        self.chosen = mx.argmax(logits[:, -1, :], axis=-1)
        return logits[..., :1]

    def sample(self, _: mx.array) -> mx.array:
        """For BatchGenerator, which calls it directly behind the network."""
        return self.chosen

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)


def answer_questions(
    model: LoadedModel,
    name: str,
    pairs: Sequence[Pair],
    params: AnswerParams,
    group: mx.distributed.Group,
    drafts: Mapping[str, str] | None = None,
) -> list[Answer]:
    """Answer each pair's question; `name` is the model's name in the records.

    An answer ends at a stop token of the model ("end") or at `params.max_tokens` ("length").
    `drafts`, by the pairs' ids, are answers that this model may give too: the more of them it does,
    the sooner it is done. They change no answer.
    All processes of `group` come here with the same arguments, share the questions and return all.
    """
    if not pairs:
        raise UserError(f"data/processed/{params.split}.jsonl: no questions to answer")
    chat = open_chat(model.tokenizer)
    prompts = [chat.prompt(pair.question) for pair in pairs]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    processes = group.size()
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
        answers = [_Answer(prompts[index], params.max_tokens) for index in mine]
        _write(model, chat, answers, drafted, params, written)
    for row, index, answer in zip(rows, mine, answers, strict=False):
        row[: 2 + len(answer.tokens)] = [index, answer.stopped, *answer.tokens]
    everyones = np.asarray(mx.distributed.all_gather(mx.array(rows), group=group, stream=mx.cpu))
    kept = {int(row[0]): row for row in everyones if row[0] != NO_ROW}
    return [_record(pair, name, chat, kept[index]) for index, pair in enumerate(pairs)]


def _record(pair: Pair, name: str, chat: Chat, row: "np.typing.NDArray[np.int32]") -> Answer:
    _, ended, *padded = (int(value) for value in row)
    tokens = [token for token in padded if token != NO_ROW]
    return Answer(
        id=pair.id,
        post=pair.post,
        question=pair.question,
        reference=pair.answer,
        model=name,
        answer=chat.decode(tokens),
        stop="end" if ended else "length",
        tokens=len(tokens),
    )


def _write(
    model: LoadedModel,
    chat: Chat,
    answers: Sequence[_Answer],
    drafts: Sequence[list[int]],
    params: AnswerParams,
    written: Callable[[int], None],
) -> None:
    """Write each answer: as far as the model goes along with its draft in one pass, then on.

    When all that are left go in circles, their drafts are more of the same. `written` is told how
    many tokens more there are, what an answer leaves out of its limit being done as well.
    """
    if any(drafts):
        _go_along(model, chat, answers, drafts, written)
    _go_on(model, chat, answers, params, written, to_circles=True)
    circling = [answer for answer in answers if answer.left]
    if circling:
        same = [list(islice(cycle(circle(each.tokens)), each.left)) for each in circling]
        _go_along(model, chat, circling, same, written)
        _go_on(model, chat, circling, params, written, to_circles=False)


def _go_along(
    model: LoadedModel,
    chat: Chat,
    answers: Sequence[_Answer],
    drafts: Sequence[list[int]],
    written: Callable[[int], None],
) -> None:
    """Write what the model has in common with the drafts of what is to come, and a token more."""
    # With the token behind them they are as long as an answer may be.
    fitting_drafts = [
        draft[: answer.left - 1] for answer, draft in zip(answers, drafts, strict=True)
    ]
    texts = [answer.text for answer in answers]
    for place, tokens, stopped in follow(model.network, texts, fitting_drafts, chat.stops):
        written(answers[place].add(tokens, stopped=stopped))


def _go_on(
    model: LoadedModel,
    chat: Chat,
    answers: Sequence[_Answer],
    params: AnswerParams,
    written: Callable[[int], None],
    *,
    to_circles: bool,
) -> None:
    """Write the answers token by token, `to_circles` until all that are left go in circles."""
    network = Greedy(model.network)
    # Read together they are padded to the longest.
    waiting = sorted((each for each in answers if each.left), key=lambda each: len(each.text))
    shared = common_prefix([answer.text for answer in waiting])
    size = params.batch_questions
    generator = BatchGenerator(
        cast("nn.Module", network),
        stop_tokens=[[token] for token in chat.stops],
        sampler=network.sample,
        completion_batch_size=size,
        prefill_batch_size=size,
    )
    try:
        # Batches copy from the caches that they are given, so that all can name the same.
        one = make_prompt_cache(model.network)
        caches = [read(model.network, shared, one)] if shared else None
        writing: dict[int, _Answer] = {}
        while waiting or writing:
            free = size - len(writing)
            if REFILLED * free >= size and waiting:
                texts = [answer.text[len(shared) :] for answer in waiting[:free]]
                count = fitting(map(len, texts), READ_TOKENS)
                group, waiting = waiting[:count], waiting[count:]
                limits = [answer.left for answer in group]
                uids = generator.insert(texts[:count], limits, caches and caches * count)
                writing.update(zip(uids, group, strict=True))
            for response in generator.next_generated():
                stopped = response.finish_reason == "stop"
                tokens = [] if stopped else [response.token]
                written(writing[response.uid].add(tokens, stopped=stopped))
                if response.finish_reason is not None:
                    del writing[response.uid]
            if to_circles and not waiting and _in_circles(list(writing.values())):
                return
    finally:
        generator.close()


def _in_circles(answers: Sequence[_Answer]) -> bool:
    """Whether all go in circles, and to read them as drafts takes less time than to go on."""
    read = sum(len(answer.prompt) + answer.limit for answer in answers)
    left = max((answer.left for answer in answers), default=0)
    shorter = read < left * (PASS + len(answers))
    return shorter and all(circle(answer.tokens) for answer in answers)
