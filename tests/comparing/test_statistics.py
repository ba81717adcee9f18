import math
from random import Random

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from blogtune.comparing.statistics import (
    Floats,
    Interval,
    Tally,
    difference_at_equal_length,
    paired_difference,
    tally,
)

Rows = list[tuple[float, float, str]]


def example(seed: int, posts: int) -> tuple[Floats, Floats, Floats, list[str]]:
    """Scores of two models on questions in posts of 1 to 9 questions, alike inside a post."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 10, posts)
    codes = np.repeat(np.arange(posts), sizes)
    base = random.uniform(0.2, 0.8, len(codes))
    gain = 0.05 + random.normal(0.0, 0.1, posts)[codes] + random.normal(0.0, 0.1, len(codes))
    change = random.normal(-0.3, 0.5, len(codes))
    return base + gain - 0.1 * change, base, change, [f"post {code}" for code in codes]


def at_equal_length(
    candidate: Floats, base: Floats, change: Floats, clusters: list[str]
) -> Interval:
    found = difference_at_equal_length(candidate, base, change, clusters, 0.95)
    assert found is not None
    return found


def least_squares_without(
    cluster: str, design: Floats, outcome: Floats, clusters: list[str]
) -> float:
    kept = np.array([name != cluster for name in clusters])
    return np.linalg.lstsq(design[kept], outcome[kept], rcond=None)[0][0]


def loops(
    design: Floats, outcome: Floats, clusters: list[str], confidence: float
) -> tuple[float, float, float]:
    """Mean, low, high by leaving out one cluster after the other, and scipy's t."""
    names = sorted(set(clusters))
    whole = np.linalg.lstsq(design, outcome, rcond=None)[0][0]
    total = 0.0
    for name in names:
        total += (least_squares_without(name, design, outcome, clusters) - whole) ** 2
    error = math.sqrt((len(names) - 1) / len(names) * total)
    low, high = stats.t.interval(confidence, len(names) - 1, loc=whole, scale=error)
    return whole, low, high


@pytest.mark.parametrize("posts", [2, 5, 40])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_interval_is_that_of_a_jackknife_in_plain_loops(posts: int, confidence: float) -> None:
    candidate, base, _, clusters = example(posts, posts)
    found = paired_difference(candidate, base, clusters, confidence)
    expected = loops(np.ones((len(base), 1)), candidate - base, clusters, confidence)
    assert (found.mean, found.low, found.high) == pytest.approx(expected, abs=1e-12)
    assert found.clusters == posts


def test_the_standard_error_is_cr3_of_statsmodels() -> None:
    """Its `bias_reduced` (Mancl and DeRouen 2001) is CR3 but for the factor (G - 1) / G."""
    candidate, base, change, clusters = example(3, 30)
    model = sm.GEE(candidate - base, sm.add_constant(change), groups=clusters)
    expected = model.fit(cov_type="bias_reduced")
    found = at_equal_length(candidate, base, change, clusters)
    error = (found.high - found.mean) / stats.t.ppf(0.975, 29)
    assert found.mean == pytest.approx(expected.params[0], abs=1e-10)
    assert error == pytest.approx(expected.bse[0] * math.sqrt(29 / 30), abs=1e-10)


def test_the_difference_at_equal_length_is_the_intercept_of_statsmodels() -> None:
    candidate, base, change, clusters = example(5, 12)
    design = sm.add_constant(change)
    found = at_equal_length(candidate, base, change, clusters)
    assert found.mean == pytest.approx(sm.OLS(candidate - base, design).fit().params[0], abs=1e-12)
    expected = loops(design, candidate - base, clusters, 0.95)
    assert (found.mean, found.low, found.high) == pytest.approx(expected, abs=1e-12)


def test_a_gain_that_comes_from_length_alone_is_none_at_equal_length() -> None:
    change = np.linspace(-1.0, 0.5, 40)
    base = np.full(40, 0.5)
    clusters = [str(row // 2) for row in range(40)]
    found = at_equal_length(base - 0.2 * change, base, change, clusters)
    assert found.mean == pytest.approx(0.0, abs=1e-12)
    assert paired_difference(base - 0.2 * change, base, clusters, 0.95).mean > 0.04


@pytest.mark.parametrize(
    "change",
    [
        pytest.param([0.0, 0.0, 0.0, 0.0], id="no change anywhere"),
        pytest.param([0.3, 0.3, 0.3, 0.3], id="the same change everywhere"),
        pytest.param([0.0, 0.0, 0.0, 0.7], id="a change in one post only"),
    ],
)
def test_without_varying_lengths_there_is_no_difference_at_equal_length(
    change: list[float],
) -> None:
    clusters = ["a", "a", "b", "c"]
    assert difference_at_equal_length([1, 1, 0, 1], [0, 1, 0, 0], change, clusters, 0.95) is None


def test_questions_of_one_post_are_one_piece_of_evidence() -> None:
    separate = paired_difference([0.6, 0.9], [0.5, 0.5], ["a", "b"], 0.95)
    tripled = paired_difference([0.6, 0.9] * 3, [0.5, 0.5] * 3, ["a", "b"] * 3, 0.95)
    assert tripled.mean == pytest.approx(separate.mean)
    assert tripled.high == pytest.approx(separate.high)


def test_a_single_post_says_nothing_of_others() -> None:
    found = paired_difference([0.6, 0.9], [0.5, 0.5], ["a", "a"], 0.95)
    assert (found.mean, found.low, found.high) == (pytest.approx(0.25), -math.inf, math.inf)


@pytest.mark.parametrize(
    ("candidate", "clusters"),
    [([], []), ([0.5, 0.6], ["a"])],
    ids=["no question", "a cluster is missing"],
)
def test_scores_that_do_not_go_together_are_refused(
    candidate: list[float], clusters: list[str]
) -> None:
    with pytest.raises(ValueError, match="differences in"):
        paired_difference(candidate, candidate, clusters, 0.95)


scores = st.floats(0.0, 1.0, allow_subnormal=False)
rows = st.lists(st.tuples(scores, scores, st.sampled_from("abcdefg")), min_size=1, max_size=30)


@given(rows, st.randoms(use_true_random=False))
def test_the_order_of_the_questions_does_not_matter(questions: Rows, random: Random) -> None:
    shuffled = random.sample(questions, len(questions))
    first = paired_difference(*zip(*questions, strict=True), 0.95)
    second = paired_difference(*zip(*shuffled, strict=True), 0.95)
    assert first.mean == pytest.approx(second.mean, abs=1e-12)
    assert first.high == pytest.approx(second.high, abs=1e-9)


@given(rows)
def test_exchanging_the_models_turns_the_interval_around(questions: Rows) -> None:
    candidate, base, clusters = zip(*questions, strict=True)
    there = paired_difference(candidate, base, clusters, 0.95)
    back = paired_difference(base, candidate, clusters, 0.95)
    assert there.mean == pytest.approx(-back.mean, abs=1e-12)
    assert there.low == pytest.approx(-back.high, abs=1e-9)


def test_wins_ties_and_losses_are_counted() -> None:
    candidate = [0.9, 0.500001, 0.5, 0.1, 0.7]
    assert tally(candidate, [0.5, 0.5, 0.5, 0.5, 0.6]) == Tally(wins=2, ties=2, losses=1)


def simulated_coverage(posts: int, repetitions: int) -> float:
    """How often the 95% interval holds the true difference, 0.

    Posts have 1 to 10 questions, which share half of their variance (intraclass correlation 0.5).
    """
    random = np.random.default_rng(posts)
    hits = 0
    for sizes in random.integers(1, 11, (repetitions, posts)):
        codes = np.repeat(np.arange(posts), sizes)
        ours = random.normal(0.0, 0.1, posts)[codes] + random.normal(0.0, 0.1, len(codes))
        found = paired_difference(ours, np.zeros_like(ours), codes.astype(str).tolist(), 0.95)
        hits += found.low <= 0.0 <= found.high
    return hits / repetitions


# At so many repetitions the coverage found is within 0.3 to 0.5 points (one standard error).
@pytest.mark.parametrize(("posts", "repetitions"), [(10, 6000), (50, 3000), (200, 2000)])
def test_a_95_percent_interval_holds_the_truth_93_to_97_times_of_100(
    posts: int, repetitions: int
) -> None:
    assert 0.93 <= simulated_coverage(posts, repetitions) <= 0.97
