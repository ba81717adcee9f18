import math
from typing import Any

import pytest

from blogtune.checking.figures import Fitness
from blogtune.comparing.verdict import Evidence, Outcome, outcome, sentence, signed
from blogtune.statistics.clustered import Interval
from tests.comparing.build import fitness

UP = Interval(0.071, 0.042, 0.1, 70)
UNSURE = Interval(0.02, -0.01, 0.05, 70)
TOUCHING = Interval(0.02, 0.0, 0.04, 70)
DOWN = Interval(-0.05, -0.09, -0.01, 70)
FEW = Interval(0.071, 0.042, 0.1, 9)
ENOUGH = Interval(0.071, 0.042, 0.1, 10)
ONE = Interval(0.071, -math.inf, math.inf, 1)


def evidence(similarity: Interval | None, beyond: Interval | None, **values: Any) -> Evidence:
    defaults = {"above_echo": 0.1, "questions": 84, "posts_named": 84, "fitness": fitness()}
    return Evidence(similarity, beyond, **{**defaults, **values})


def told(given: Evidence, min_posts: int) -> str:
    """The sentence about this adapter."""
    return sentence("this adapter", *outcome(given, min_posts), given)


@pytest.mark.parametrize(
    ("similarity", "beyond", "above_echo", "expected", "reason"),
    [
        pytest.param(UP, UP, 0.1, "improved", "", id="both up"),
        pytest.param(UP, UP, -0.1, "improved", "", id="both up, below the echo"),
        pytest.param(
            UP, UNSURE, 0.1, "no evidence", "partial similarity did not rise", id="not beyond"
        ),
        pytest.param(
            UP, TOUCHING, 0.1, "no evidence", "partial similarity did not rise", id="beyond at 0"
        ),
        pytest.param(
            UP, DOWN, 0.1, "no evidence", "partial similarity did not rise", id="less beyond"
        ),
        pytest.param(UNSURE, UP, 0.1, "no evidence", "[-0.010, +0.050] contains 0", id="unsure"),
        pytest.param(TOUCHING, UP, 0.1, "no evidence", "[+0.000, +0.040] contains 0", id="at 0"),
        pytest.param(DOWN, UP, 0.1, "worse", "", id="down, whatever lies beyond"),
        pytest.param(UP, None, 0.1, "improved", "", id="one measure, above the echo"),
        pytest.param(
            UP, None, 0.0, "no evidence", "not above the echoed", id="level with the echo"
        ),
        pytest.param(UP, None, math.nan, "no evidence", "not above the echoed", id="no echo"),
        pytest.param(DOWN, None, 0.1, "worse", "", id="one measure, down"),
        pytest.param(FEW, FEW, 0.1, "no verdict", "9 posts, at least 10", id="too few posts"),
        pytest.param(ENOUGH, ENOUGH, 0.1, "improved", "", id="just enough posts"),
        pytest.param(ONE, None, 0.1, "no verdict", "1 post, at least 10", id="a single post"),
        pytest.param(None, None, 0.1, "no verdict", "no question was scored", id="no scores"),
    ],
)
def test_the_outcome_is_never_more_than_the_intervals_show(
    similarity: Interval | None,
    beyond: Interval | None,
    above_echo: float,
    expected: Outcome,
    reason: str,
) -> None:
    found, why = outcome(evidence(similarity, beyond, above_echo=above_echo), min_posts=10)
    assert found == expected
    assert reason in why
    assert bool(reason) == bool(why)


def test_the_sentence_carries_figures_basis_and_judge() -> None:
    assert told(evidence(UP, UP), 10) == (
        "this adapter: improved; similarity +0.071 [+0.042, +0.100], partial similarity +0.071 "
        "[+0.042, +0.100], 84 questions in 70 posts, judged by cosine (judge passed its test)"
    )


def test_what_rounds_to_nothing_keeps_its_side_of_0() -> None:
    """Or else something "worse" would seem to have an interval that contains 0."""
    worse = Interval(-0.011, -0.022, -0.0004, 70)
    said = told(evidence(worse, None), 10)
    assert ": worse; similarity -0.011 [-0.022, -0.000], " in said
    nothing = Interval(0.0, -0.0, 0.0, 70)
    assert signed(nothing) == "+0.000 [+0.000, +0.000]"


def test_the_sentence_gives_the_reason_before_the_figures() -> None:
    assert told(evidence(UNSURE, None), 10) == (
        "this adapter: no evidence (similarity's interval [-0.010, +0.050] contains 0); "
        "similarity +0.020 [-0.010, +0.050], 84 questions in 70 posts, judged by cosine "
        "(judge passed its test)"
    )


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        pytest.param(0, "84 questions (none names its post: each counted as its own),", id="none"),
        pytest.param(81, "in 70 posts (3 without a post, each counted as its own),", id="some"),
        pytest.param(84, "84 questions in 70 posts,", id="all"),
    ],
)
def test_questions_without_a_post_are_mentioned(named: int, expected: str) -> None:
    assert expected in told(evidence(UP, UP, posts_named=named), 10)


def test_without_any_score_the_sentence_has_no_figures() -> None:
    found = told(evidence(None, None, questions=0, posts_named=0), 10)
    assert found.startswith(
        "this adapter: no verdict (no question was scored for both); 0 questions"
    )


UNFIT = fitness(fit=False, reasons="AUC 0.52 below 0.9", blind_spots="echo")


@pytest.mark.parametrize("similarity", [UP, DOWN, UNSURE, FEW, None])
def test_there_is_no_verdict_by_a_judge_that_failed_its_test(similarity: Interval | None) -> None:
    found = outcome(evidence(similarity, similarity, fitness=UNFIT), min_posts=10)
    assert found == ("no verdict", "the judge failed its test (AUC 0.52 below 0.9)")


def test_an_unfit_judge_s_figures_are_still_told() -> None:
    assert told(evidence(UP, None, fitness=UNFIT), 10) == (
        "this adapter: no verdict: the judge failed its test (AUC 0.52 below 0.9); similarity "
        "+0.071 [+0.042, +0.100], 84 questions in 70 posts, judged by cosine"
    )


@pytest.mark.parametrize(
    ("judge", "expected"),
    [
        pytest.param(fitness(), "(judge passed its test)", id="sees everything"),
        pytest.param(
            fitness(blind_spots="negation, numbers"),
            "(judge passed its test; known blind spots: negation, numbers)",
            id="with known blind spots",
        ),
        pytest.param(
            fitness(right="reordered", paraphrases=0, untested="numbers"),
            "(judge passed an easy test without paraphrases; not tested with: numbers)",
            id="without paraphrases",
        ),
        pytest.param(
            fitness(paraphrases=3),
            "(judge passed its test with only 3 paraphrases)",
            id="few paraphrases",
        ),
    ],
)
def test_the_sentence_names_what_the_judge_cannot_see(judge: Fitness, expected: str) -> None:
    found = told(evidence(UP, UP, fitness=judge), 10)
    assert found.endswith(f"judged by cosine {expected}")
