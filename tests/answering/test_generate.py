from typing import Any

import mlx.core as mx
import pytest

from blogtune.answering import generate
from blogtune.answering.generate import answer_questions
from blogtune.answering.params import AnswerParams
from blogtune.common.errors import UserError
from blogtune.common.progress import progress
from blogtune.common.records import Message, Pair
from blogtune.models.chat import open_chat
from blogtune.models.loading import LoadedModel
from tests import tiny

# Known questions, and others on which the taught model rambles.
QUESTIONS = [
    *tiny.facts(),
    *(tiny.pair(f"n{row}", f"Tell {'again ' * row}of {row}!", "-", "p") for row in range(12)),
]


def params(max_tokens: int = 40, batch: int = 4) -> AnswerParams:
    return AnswerParams(split="test", max_tokens=max_tokens, batch_questions=batch)


def greedy(model: LoadedModel, question: str, limit: int) -> tuple[str, str, int]:
    """Answer, stop and tokens, one question at a time, every token from the whole text."""
    chat = open_chat(model.tokenizer)
    prompt, answer = chat.prompt(question), list[int]()
    while len(answer) < limit:
        token = int(model.network(mx.array([[*prompt, *answer]]))[0, -1].argmax())
        if token in chat.stops:
            return chat.decode(answer), "end", len(answer)
        answer.append(token)
    return chat.decode(answer), "length", len(answer)


@pytest.fixture(scope="module")
def expected(taught: LoadedModel) -> list[tuple[str, str, int]]:
    return [greedy(taught, pair.question, 12) for pair in QUESTIONS]


@pytest.mark.parametrize("batch", [1, 4, 64], ids=lambda batch: f"{batch} at once")
def test_batched_answers_are_those_of_one_by_one(
    taught: LoadedModel, expected: list[tuple[str, str, int]], batch: int
) -> None:
    answers = answer_questions(
        taught, "base", QUESTIONS, params(max_tokens=12, batch=batch), tiny.ALONE
    )
    got = [(a.answer, a.stop, a.tokens) for a in answers]
    assert got == expected
    assert {stop for _, stop, _ in got} == {"end", "length"}


def test_answers_come_in_the_order_of_the_questions(taught: LoadedModel) -> None:
    for order in (QUESTIONS, QUESTIONS[::-1]):
        answers = answer_questions(taught, "base", order, params(max_tokens=3), tiny.ALONE)
        assert [answer.id for answer in answers] == [pair.id for pair in order]


def test_an_answer_carries_its_question_reference_post_and_model(taught: LoadedModel) -> None:
    pair = tiny.pair("a", "What is the rank?", "The reference.", post="p")
    (answer,) = answer_questions(taught, "finetuned", [pair], params(), tiny.ALONE)
    assert (answer.id, answer.post, answer.model) == ("a", "p", "finetuned")
    assert (answer.question, answer.reference) == ("What is the rank?", "The reference.")


def test_a_follow_up_question_is_asked_behind_what_was_said_before(taught: LoadedModel) -> None:
    said = (Message(role="user", content="Tell me!"), Message(role="assistant", content="What?"))
    plain = tiny.pair("a", "What is the rank?", "The reference.")
    pair = plain.model_copy(update={"context": said})
    (answer,) = answer_questions(taught, "base", [pair], params(max_tokens=12), tiny.ALONE)
    assert answer.context == said
    chat, network = open_chat(taught.tokenizer), taught.network
    prompt = chat.prompt("What is the rank?", said)
    token = int(network(mx.array([prompt]))[0, -1].argmax())
    assert chat.decode(prompt).startswith("user\nTell me!\nassistant\nWhat?\nuser\nWhat is")
    assert answer.answer.startswith(chat.decode([token]))


def test_a_whole_answer_ends_and_counts_its_tokens_without_the_end(taught: LoadedModel) -> None:
    chat = open_chat(taught.tokenizer)
    for answer in answer_questions(taught, "base", tiny.facts(), params(), tiny.ALONE):
        assert (answer.answer, answer.stop) == (tiny.FACTS[answer.question], "end")
        assert answer.tokens == len(chat.answer(answer.answer)) - 1


@pytest.mark.parametrize(
    ("room", "stop"),
    [
        pytest.param(-1, "length", id="one token short"),
        # The end token needs a step of its own, which the limit does not leave.
        pytest.param(0, "length", id="room for the answer only"),
        pytest.param(1, "end", id="room for the end token"),
    ],
)
def test_a_limit_stops_an_answer(taught: LoadedModel, room: int, stop: str) -> None:
    question, text = next(iter(tiny.FACTS.items()))
    whole = open_chat(taught.tokenizer).answer(text)[:-1]
    limit = len(whole) + room
    pairs = [tiny.pair("a", question, text)]
    (answer,) = answer_questions(taught, "base", pairs, params(max_tokens=limit), tiny.ALONE)
    assert (answer.stop, answer.tokens) == (stop, min(limit, len(whole)))


@pytest.mark.parametrize("drafted", [False, True])
def test_progress_is_told_token_by_token_and_comes_to_its_end(
    taught: LoadedModel, monkeypatch: pytest.MonkeyPatch, *, drafted: bool
) -> None:
    counts = list[int]()
    bars = list[Any]()

    def shown(**settings: Any) -> Any:
        bar = progress(**settings)
        own_update = bar.update

        def update(count: int) -> None:
            counts.append(count)
            own_update(count)

        bar.update = update
        bars.append(bar)
        return bar

    monkeypatch.setattr(generate, "progress", shown)
    drafts = {pair.id: pair.answer for pair in QUESTIONS} if drafted else {}
    answers = answer_questions(taught, "base", QUESTIONS, params(12), tiny.ALONE, drafts)
    (bar,) = bars
    assert bar.n == bar.total == sum(counts) == 12 * len(QUESTIONS)
    one_by_one = sum(answer.tokens for answer in answers)
    # Of a draft come several at once.
    assert counts.count(1) < one_by_one if drafted else counts.count(1) >= one_by_one


def test_asking_twice_gives_the_same_answers(taught: LoadedModel) -> None:
    first, second = (
        answer_questions(taught, "base", QUESTIONS, params(12), tiny.ALONE) for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("split", ["test", "valid"])
def test_without_questions_the_file_is_named(taught: LoadedModel, split: str) -> None:
    values = AnswerParams.model_validate({**params().model_dump(), "split": split})
    nothing: list[Pair] = []
    with pytest.raises(UserError) as caught:
        answer_questions(taught, "base", nothing, values, tiny.ALONE)
    assert str(caught.value) == f"data/processed/{split}.jsonl: no questions to answer"
