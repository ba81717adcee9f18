from pathlib import Path

import mlx.core as mx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blogtune.answering.generate import answer_questions
from blogtune.answering.params import AnswerParams
from blogtune.chatting.reply import reply
from blogtune.common.errors import UserError
from blogtune.models.loading import LoadedModel, load_model
from tests import tiny

PARAMS = AnswerParams(split="test", max_tokens=24, batch_questions=4)


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> LoadedModel:
    return load_model(tiny_folder, mx.float32)


def test_the_answer_shown_is_the_one_that_the_stage_writes(model: LoadedModel) -> None:
    pairs = tiny.facts()
    written = answer_questions(model, "base", pairs, PARAMS, tiny.ALONE)
    for pair, answer in zip(pairs, written, strict=True):
        pieces: list[str] = []
        assert reply(model, pair.question, PARAMS, pieces.append) == answer.answer
        assert "".join(pieces) == answer.answer


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.text(st.sampled_from("what is \u4e2d\U0001f984\u00e9<|im_end|>$`'\""), min_size=1).filter(
        str.strip
    )
)
def test_its_pieces_are_whole_characters_and_make_the_answer(
    model: LoadedModel, question: str
) -> None:
    pieces: list[str] = []
    answer = reply(model, question, PARAMS, pieces.append)
    assert "".join(pieces) == answer
    assert not any(piece.endswith("\ufffd") for piece in pieces[:-1])


def test_it_comes_while_it_is_written(model: LoadedModel) -> None:
    pieces: list[str] = []
    answer = reply(model, "What is the rank of an adapter?", PARAMS, pieces.append)
    assert len([piece for piece in pieces if piece]) > 1
    assert len(pieces[0]) < len(answer)


def test_a_question_longer_than_the_model_reads_is_refused(tiny_folder: Path) -> None:
    model = load_model(tiny_folder, mx.float32)
    assert model.context is not None
    with pytest.raises(UserError, match="the question: its question has"):
        reply(model, "why " * model.context, PARAMS, lambda _: None)
