"""Greedy answers from mlx-lm's continuous batching: sorted by length inside, in order outside."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import make_prompt_cache

from blogtune.answering.drafts import follow
from blogtune.answering.params import AnswerParams
from blogtune.errors import UserError
from blogtune.models.chat import Chat, open_chat
from blogtune.models.loading import LoadedModel
from blogtune.models.prefix import common_beginning, read
from blogtune.models.reading import fitting
from blogtune.progress import progress
from blogtune.records import Answer, Pair

# Place of the prompt, generated tokens without the stop token, and whether it stopped.
Generated = tuple[int, list[int], bool]

NO_ROW = -1
# To begin with some answers costs a pass over all weights, however few they are: they wait until
# this part of a batch is free,
REFILLED = 4
# and begin together, so many tokens of their questions at once.
READ_TOKENS = 2048


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
        asked = [prompts[index] for index in mine]
        generated = _generate(model, chat, asked, drafted, params, written)
        for row, (place, tokens, ended) in zip(rows, generated, strict=False):
            row[: 2 + len(tokens)] = [mine[place], ended, *tokens]
            # What an answer leaves out of its limit is done as well.
            written(params.max_tokens - len(tokens))
    everyones = np.asarray(mx.distributed.all_gather(mx.array(rows), group=group, stream=mx.cpu))
    kept = {int(row[0]): row for row in everyones if row[0] != NO_ROW}
    return [_answer(pair, name, chat, kept[index]) for index, pair in enumerate(pairs)]


def _answer(pair: Pair, name: str, chat: Chat, row: "np.typing.NDArray[np.int32]") -> Answer:
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


def _generate(
    model: LoadedModel,
    chat: Chat,
    prompts: Sequence[list[int]],
    drafts: Sequence[list[int]],
    params: AnswerParams,
    written: Callable[[int], None],
) -> Iterator[Generated]:
    """Answer each prompt: as far as the model goes along with a draft in one pass, then on.

    `written` is told how many tokens more there are.
    """
    limit = params.max_tokens
    begun: list[list[int]] = [[] for _ in prompts]
    going_on = list(range(len(prompts)))
    if any(drafts):
        # With the token behind them they are as long as an answer may be.
        fitting_drafts = [draft[: limit - 1] for draft in drafts]
        for place, tokens, stopped in follow(model.network, prompts, fitting_drafts, chat.stops):
            begun[place] = tokens
            written(len(tokens))
            if stopped or len(tokens) == limit:
                going_on.remove(place)
                yield place, tokens, stopped
    # Read together they are padded to the longest.
    going_on.sort(key=lambda place: len(prompts[place]) + len(begun[place]))
    texts = [[*prompts[place], *begun[place]] for place in going_on]
    left = [limit - len(begun[place]) for place in going_on]
    for number, tokens, stopped in _continue(model, chat.stops, texts, left, params, written):
        place = going_on[number]
        yield place, [*begun[place], *tokens], stopped


def _continue(
    model: LoadedModel,
    stops: Sequence[int],
    texts: Sequence[list[int]],
    limits: Sequence[int],
    params: AnswerParams,
    written: Callable[[int], None],
) -> Iterator[Generated]:
    """What follows each text, so many tokens at most."""
    network = Greedy(model.network)
    shared = common_beginning(texts)
    rest = [text[len(shared) :] for text in texts]
    size = params.batch_questions
    generator = BatchGenerator(
        cast("nn.Module", network),
        stop_tokens=[[token] for token in stops],
        sampler=network.sample,
        completion_batch_size=size,
        prefill_batch_size=size,
    )
    try:
        # Batches copy from the caches that they are given, so that all can name the same.
        one = make_prompt_cache(model.network)
        caches = [read(model.network, shared, one)] if shared else None
        tokens: dict[int, list[int]] = {}
        places: dict[int, int] = {}
        begun = 0
        while begun < len(rest) or tokens:
            free = size - len(tokens)
            if REFILLED * free >= size and begun < len(rest):
                lengths = map(len, rest[begun : begun + free])
                group = range(begun, begun + fitting(lengths, READ_TOKENS))
                uids = generator.insert(
                    [rest[place] for place in group],
                    [limits[place] for place in group],
                    caches and caches * len(group),
                )
                places.update(zip(uids, group, strict=True))
                tokens.update((uid, []) for uid in uids)
                begun = group.stop
            for response in generator.next_generated():
                if response.finish_reason != "stop":
                    tokens[response.uid].append(response.token)
                    written(1)
                if response.finish_reason is not None:
                    stopped = response.finish_reason == "stop"
                    yield places[response.uid], tokens.pop(response.uid), stopped
    finally:
        generator.close()
