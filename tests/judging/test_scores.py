import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blogtune.judging.prompt import DIGITS, Scale
from blogtune.judging.protocol import Verdict
from blogtune.judging.scores import DIGITS_MISSING, UNREADABLE, from_probabilities, from_text

weights = st.lists(st.floats(1e-12, 1e6), min_size=5, max_size=5)


@pytest.mark.parametrize("score", [1, 2, 3, 4, 5])
def test_a_sure_digit_scores_as_the_digit_alone(score: int) -> None:
    sure = {digit: float(digit == str(score)) for digit in DIGITS}
    assert from_probabilities(sure) == from_text(f'{{"score": {score}}}', "likert")
    assert from_probabilities(sure) == Verdict((score - 1) / 4)


@given(weights)
def test_only_the_shares_of_the_digits_count(given_weights: list[float]) -> None:
    one = from_probabilities(dict(zip(DIGITS, given_weights, strict=True))).similarity
    half = [weight / 2 for weight in given_weights]
    other = from_probabilities(dict(zip(DIGITS, half, strict=True))).similarity
    assert one is not None
    assert 0.0 <= one <= 1.0
    assert other == pytest.approx(one)


@pytest.mark.parametrize("digit", DIGITS)
def test_a_missing_digit_leaves_no_score(digit: str) -> None:
    others = {each: 0.25 for each in DIGITS if each != digit}
    assert from_probabilities(others).similarity is None


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_probability_that_is_none_leaves_no_score(odd: float) -> None:
    assert from_probabilities({**dict.fromkeys(DIGITS, 0.2), "3": odd}).similarity is None


def test_digits_of_no_weight_at_all_leave_no_score() -> None:
    assert from_probabilities(dict.fromkeys(DIGITS, 0.0)) == DIGITS_MISSING


@pytest.mark.parametrize("scale", ["unit", "likert"])
def test_true_is_no_number(scale: Scale) -> None:
    assert from_text('{"score": true}', scale) == UNREADABLE


@given(st.text())
def test_any_other_text_is_no_score(text: str) -> None:
    for scale in ("likert", "unit"):
        assert from_text(text, scale).similarity is None
