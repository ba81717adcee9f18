import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from blogtune.judging.embedding import EmbeddingJudge, Vector, partial_similarity, similarity
from blogtune.judging.protocol import Item
from tests.judging.test_encoder import ROOM, minilm

QUESTION = "What does the rank of an adapter set?"
REFERENCE = "The rank sets how many numbers an adapter trains."


def unit(*values: float) -> Vector:
    vector = np.array(values)
    return vector / np.linalg.norm(vector)


@st.composite
def units(draw: st.DrawFn) -> Vector:
    vector = draw(arrays(np.float64, 4, elements=st.floats(-1, 1)))
    length = np.linalg.norm(vector)
    assume(length > 1e-3)
    return vector / length


@given(units(), units(), units())
def test_scores_stay_in_their_ranges_and_do_not_mind_the_order(
    answer: Vector, reference: Vector, question: Vector
) -> None:
    assert 0 <= similarity(answer, reference) <= 1
    assert similarity(answer, reference) == pytest.approx(similarity(reference, answer))
    beyond = partial_similarity(answer, reference, question)
    assert -1 <= beyond <= 1
    assert beyond == pytest.approx(partial_similarity(reference, answer, question))


@given(units(), units())
def test_an_echoed_question_says_nothing_beyond_itself(reference: Vector, question: Vector) -> None:
    assert partial_similarity(question, reference, question) == 0
    assert partial_similarity(-question, reference, question) == 0


@given(units(), units())
def test_the_reference_itself_says_everything(reference: Vector, question: Vector) -> None:
    assume(abs(reference @ question) < 0.999)
    assert similarity(reference, reference) == pytest.approx(1)
    assert partial_similarity(reference, reference, question) == pytest.approx(1)


@given(units(), units(), units(), st.floats(-2, 2))
def test_mixing_the_question_in_changes_nothing_beyond_it(
    answer: Vector, reference: Vector, question: Vector, share: float
) -> None:
    assume(min(1 - abs(answer @ question), 1 - abs(reference @ question)) > 1e-3)
    mixed = answer + share * question
    expected = partial_similarity(answer, reference, question)
    got = partial_similarity(mixed / np.linalg.norm(mixed), reference, question)
    assert got == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(unit(1, 0, 0), 1.0, id="same direction"),
        pytest.param(unit(1, 1, 0), 2**-0.5, id="halfway"),
        pytest.param(unit(0, 1, 0), 0.0, id="nothing in common"),
        pytest.param(unit(-1, 0.1, 0), 0.0, id="opposite: clipped at 0"),
    ],
)
def test_similarity_is_the_cosine_or_0(answer: Vector, expected: float) -> None:
    assert similarity(answer, unit(1, 0, 0)) == pytest.approx(expected)


def test_beyond_the_question_is_the_cosine_of_what_is_left() -> None:
    question = unit(0, 0, 1)
    answer, reference = unit(1, 0, 3), unit(1, 1, -2)
    assert partial_similarity(answer, reference, question) == pytest.approx(2**-0.5)
    assert partial_similarity(-answer, reference, question) == pytest.approx(-(2**-0.5))


def test_what_is_left_of_rounding_says_nothing_beyond_the_question() -> None:
    assert partial_similarity(unit(1e-8, 0, 1), unit(1, 1, 1), unit(0, 0, 1)) == 0.0


@pytest.fixture(scope="module")
def judge() -> EmbeddingJudge:
    return EmbeddingJudge(minilm())


def test_the_judge_sees_through_an_echo(judge: EmbeddingJudge) -> None:
    answers = [QUESTION, REFERENCE, "How many parameters are trained.", "I like cheese."]
    verdicts = list(judge.judge([Item(QUESTION, REFERENCE, answer) for answer in answers]))
    echo, same, right, wrong = ((v.similarity or 0, v.partial_similarity or 0) for v in verdicts)
    assert echo[0] > right[0] > wrong[0]
    assert right[1] > wrong[1] > echo[1] == 0
    assert same == (pytest.approx(1), pytest.approx(1))


def test_what_was_not_read_to_the_end_is_flagged(judge: EmbeddingJudge) -> None:
    whole, long = "word " * ROOM, "word " * (ROOM + 1)
    items = {
        "all read": Item(QUESTION, REFERENCE, whole),
        "long answer": Item(QUESTION, REFERENCE, long),
        "long reference": Item(QUESTION, long, REFERENCE),
        "long question": Item(long, REFERENCE, REFERENCE),
    }
    verdicts = dict(zip(items, judge.judge(list(items.values())), strict=True))
    flagged = {name for name, verdict in verdicts.items() if verdict.truncated}
    assert flagged == {"long answer", "long reference"}


def test_no_items_give_no_verdicts(judge: EmbeddingJudge) -> None:
    assert list(judge.judge([])) == []
