"""Likelihoods against a plain pass of the network over each text by itself."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optimizers
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlx import nn
from scipy.special import log_softmax

from blogtune.common.records import Message, Pair
from blogtune.models import reading
from blogtune.models.chat import Chat, open_chat
from blogtune.models.loading import LoadedModel, load_model, load_tokenizer
from blogtune.models.template import QUESTION
from blogtune.probing.likelihood import Question, Score, empty_prompt, score
from blogtune.training.examples import make_batch, make_examples
from tests import tiny
from tests.training.oracle import simple_loss

QUESTIONS = [
    Question("What is the rank?", ["Eight.", "Nine.", "The top ones, because they are cheapest."]),
    Question("Who judges?", ["Another model.", "Eight."]),
    Question(
        "And why?",
        ["In the parameters.", "Eight."],
        (Message(role="system", content="Be brief."),),
    ),
    Question("", [""]),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(tiny.save_model(tmp_path_factory.mktemp("model")), mx.float32)


@pytest.fixture(scope="module")
def chat(model: LoadedModel) -> Chat:
    return open_chat(model.tokenizer)


def plainly(model: LoadedModel, prompt: list[int], answer: list[int]) -> float:
    """The mean log-likelihood of the answer's tokens from one pass over all of the text."""
    logits = np.asarray(model.network(mx.array([[*prompt, *answer]])).astype(mx.float32))
    expected = log_softmax(logits[0, len(prompt) - 1 : -1].astype(np.float64), axis=1)
    return float(expected[np.arange(len(answer)), answer].mean())


def expected(model: LoadedModel, chat: Chat, each: Question, text: str) -> Score:
    answer = chat.answer(text)
    assert answer[-1] == chat.end
    asked, unasked = (chat.prompt(words, each.context) for words in (each.question, ""))
    return Score(plainly(model, asked, answer), plainly(model, unasked, answer))


@pytest.mark.parametrize("tokens", [1, 40, 1024])
def test_each_candidate_has_the_likelihood_that_a_plain_pass_gives(
    model: LoadedModel, chat: Chat, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "TOKENS", tokens)
    found = score(model.network, chat, QUESTIONS)
    for each, scores in zip(QUESTIONS, found, strict=True):
        assert len(scores) == len(each.candidates)
        for text, one in zip(each.candidates, scores, strict=True):
            assert one == pytest.approx(expected(model, chat, each, text), abs=1e-5)
            assert one is not None
            assert one.pmi == one.asked - one.unasked


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(len(QUESTIONS))),
    tokens=st.integers(1, 200),
    turned=st.booleans(),
)
def test_neither_batches_nor_the_order_change_a_score(
    model: LoadedModel,
    chat: Chat,
    order: list[int],
    tokens: int,
    turned: bool,
) -> None:
    before = score(model.network, chat, QUESTIONS)
    step = -1 if turned else 1
    given = [QUESTIONS[at]._replace(candidates=QUESTIONS[at].candidates[::step]) for at in order]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "TOKENS", tokens)
        after = score(model.network, chat, given)
    for at, scores in zip(order, after, strict=True):
        np.testing.assert_allclose(_values(scores[::step]), _values(before[at]), atol=1e-5)


def _values(scores: list[Score | None]) -> list[Any]:
    return [tuple(each) for each in scores if each is not None]


def test_a_text_with_control_tokens_is_text(model: LoadedModel, chat: Chat) -> None:
    text = f"Eight.{tiny.END}\n{tiny.START}user\nNo."
    asked = Question(f"{tiny.END} What?", [text, "Eight."])
    ((one, other),) = score(model.network, chat, [asked])
    assert one == pytest.approx(expected(model, chat, asked, text), abs=1e-5)
    assert one != other
    # The end stands once, behind all of it.
    assert chat.answer(text).count(chat.end) == 1


def test_what_the_network_cannot_read_as_a_whole_has_no_score(
    model: LoadedModel, chat: Chat
) -> None:
    asked = Question("Why?", ["Because. " * 40, "So."])
    limit = len(chat.prompt("Why?")) + len(chat.answer("So."))
    ((one, other),) = score(model.network, chat, [asked], limit=limit)
    assert (one, other is None) == (None, False)
    assert score(model.network, chat, [asked], limit=limit - 1) == [[None, None]]
    assert score(model.network, chat, []) == []


def test_an_empty_question_is_the_template_around_nothing(chat: Chat) -> None:
    assert empty_prompt(chat) == (chat.prompt(""), "template")


def test_where_the_template_refuses_it_the_reply_header_stands_alone(tmp_path: Path) -> None:
    refusing = "{% if not messages[-1]['content'] %}{{ raise_exception('empty') }}{% endif %}"
    tiny.write_tokenizer(tmp_path, refusing + tiny.CHATML)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    chat = open_chat(load_tokenizer(tmp_path))
    tokens, made_of = empty_prompt(chat)
    assert made_of == "reply header"
    text = chat.tokenizer.decode(tokens)
    assert text == f"{tiny.END}\n{tiny.START}assistant\n"
    assert chat.frame.prompt == f"{tiny.START}user\n{QUESTION}{text}"


def taught(chat: Chat, pairs: list[Pair], steps: int) -> Any:
    """A tiny network, all of whose weights were trained on the pairs."""
    network = tiny.network(seed=2)
    batch = make_batch(make_examples(pairs, chat, 128)[0])
    optimizer = optimizers.Adam(learning_rate=3e-3)
    gradients = nn.value_and_grad(network, lambda m: simple_loss(m, batch, len(batch.targets)))
    for _ in range(steps):
        _, gradient = gradients(network)
        optimizer.update(network, gradient)
        mx.eval(network.parameters(), optimizer.state)
    return network


def test_a_model_taught_five_pairs_prefers_their_answers(chat: Chat) -> None:
    """Planted knowledge: each answer is right for one question, and wrong for the others."""
    pairs = tiny.facts()[:5]
    answers = [pair.answer for pair in pairs]
    asked = [
        Question(p.question, [p.answer, *(a for a in answers if a != p.answer)]) for p in pairs
    ]
    assert max(_right(score(tiny.network(seed=2), chat, asked))) <= 2
    assert _right(score(taught(chat, pairs, 40), chat, asked)) == (5, 5)


def test_a_model_that_knows_what_its_answers_name_is_seen_by_likelihood_and_not_by_pmi(
    chat: Chat,
) -> None:
    """The reason why PMI is not the main score: "Oxbow has" is enough to know the number."""
    beds = {"Oxbow": 44, "Karsk": 38, "Ullin": 24, "Tolm": 26, "Lund": 15}
    pairs = [tiny.pair(hut, f"{hut}: beds?", f"{hut} has {n} beds.") for hut, n in beds.items()]
    asked = [
        Question(
            p.question,
            [p.answer, *(f"{p.id} has {n} beds." for n in beds.values() if n != beds[p.id])],
        )
        for p in pairs
    ]
    by_pmi, by_likelihood = _right(score(taught(chat, pairs, 120), chat, asked))
    assert by_likelihood == 5
    assert by_pmi < 5


def _right(scores: list[list[Score | None]]) -> tuple[int, int]:
    """How often the first is above all others, by PMI and by the likelihood alone."""
    whole = [[each for each in row if each is not None] for row in scores]
    by_pmi = sum(first.pmi > max(each.pmi for each in others) for first, *others in whole)
    alone = sum(first.asked > max(each.asked for each in others) for first, *others in whole)
    return by_pmi, alone
