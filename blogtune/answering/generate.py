"""Greedy answers from mlx-lm's continuous batching: sorted by length inside, in order outside."""

from collections.abc import Iterator, Sequence

from mlx_lm.generate import BatchGenerator
from tqdm import tqdm

from blogtune.answering.params import AnswerParams
from blogtune.errors import UserError
from blogtune.models.chat import Chat, open_chat
from blogtune.models.loading import LoadedModel
from blogtune.records import Answer, Pair


def answer_questions(
    model: LoadedModel, name: str, pairs: Sequence[Pair], params: AnswerParams
) -> list[Answer]:
    """Answer each pair's question; `name` is the model's name in the records.

    An answer ends at a stop token of the model ("end") or at `params.max_tokens` ("length").
    """
    if not pairs:
        raise UserError(f"data/processed/{params.split}.jsonl: no questions to answer")
    chat = open_chat(model.tokenizer)
    answers: dict[int, Answer] = {}
    with tqdm(total=len(pairs), desc=f"answer {name}", unit="answer", disable=None) as bar:
        for index, tokens, stop in _generate(model, chat, pairs, params):
            pair = pairs[index]
            answers[index] = Answer(
                id=pair.id,
                post=pair.post,
                question=pair.question,
                reference=pair.answer,
                model=name,
                answer=chat.decode(tokens),
                stop="end" if stop == "stop" else "length",
                tokens=len(tokens),
            )
            bar.update()
    return [answers[index] for index in range(len(pairs))]


def _generate(
    model: LoadedModel, chat: Chat, pairs: Sequence[Pair], params: AnswerParams
) -> Iterator[tuple[int, list[int], str]]:
    """Yield (index of the question, generated tokens without the stop token, finish reason)."""
    prompts = [chat.prompt(pair.question) for pair in pairs]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    generator = BatchGenerator(
        model.network,
        max_tokens=params.max_tokens,
        stop_tokens=[[token] for token in chat.stops],
        completion_batch_size=params.batch_questions,
    )
    try:
        uids = generator.insert([prompts[index] for index in order])
        index_of = dict(zip(uids, order, strict=True))
        tokens: dict[int, list[int]] = {uid: [] for uid in uids}
        while responses := generator.next_generated():
            for response in responses:
                if response.finish_reason != "stop":
                    tokens[response.uid].append(response.token)
                if response.finish_reason is not None:
                    generated = tokens.pop(response.uid)
                    yield index_of[response.uid], generated, response.finish_reason
    finally:
        generator.close()
