import math
from random import Random

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from blogtune.statistics.clustered import (
    MOST_PARTS,
    TIE,
    Floats,
    Interval,
    Tally,
    difference_at_equal_length,
    paired_difference,
    rank_correlation,
    same_preference,
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
    # The limit itself is no tie.
    assert tally([TIE, -TIE, 0.9 * TIE], [0.0] * 3) == Tally(wins=1, ties=1, losses=1)


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


def two_judges(seed: int, posts: int, each: int = 4) -> tuple[Floats, Floats, list[str]]:
    """Scores of two judges with noise of their own, the second's on a scale of five levels."""
    random = np.random.default_rng(seed)
    worth = np.repeat(random.normal(0.0, 0.7, posts), each) + random.normal(0.0, 0.7, posts * each)
    first = worth + random.normal(0.0, 1.0, len(worth))
    second = np.clip(np.round(worth + random.normal(0.0, 1.0, len(worth))), -2.0, 2.0)
    return first, second, [f"post {row // each}" for row in range(len(worth))]


@pytest.mark.parametrize("posts", [3, 12, 40])
def test_the_rank_correlation_is_scipys_with_a_jackknife_in_plain_loops(posts: int) -> None:
    first, second, clusters = two_judges(posts, posts)
    found = rank_correlation(first, second, clusters, 0.9)
    whole = stats.spearmanr(first, second).statistic
    total = 0.0
    for name in sorted(set(clusters)):
        kept = np.array([cluster != name for cluster in clusters])
        total += (stats.spearmanr(first[kept], second[kept]).statistic - whole) ** 2
    error = math.sqrt((posts - 1) / posts * total)
    low, high = stats.t.interval(0.9, posts - 1, loc=whole, scale=error)
    assert found is not None
    assert found.mean == pytest.approx(whole)
    assert (found.low, found.high) == pytest.approx((max(-1, low), min(1, high)))
    assert found.clusters == posts


def test_of_many_posts_several_are_left_out_at_a_time() -> None:
    first, second, clusters = two_judges(5, 3 * MOST_PARTS, each=1)
    found = rank_correlation(first, second, clusters, 0.95)
    parts = [f"part {row % MOST_PARTS}" for row in range(len(clusters))]
    assert found == rank_correlation(first, second, parts, 0.95)
    assert found is not None
    assert found.clusters == MOST_PARTS


def test_the_order_of_the_posts_names_does_not_matter_to_the_rank_correlation() -> None:
    first, second, clusters = two_judges(1, 10)
    renamed = [f"{hash(cluster)}" for cluster in clusters]
    assert rank_correlation(first, second, clusters, 0.95) == rank_correlation(
        first, second, renamed, 0.95
    )


@pytest.mark.parametrize(
    ("first", "second", "clusters"),
    [
        pytest.param([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], "abc", id="the same score throughout"),
        pytest.param([1.0, 1.0, 2.0], [1.0, 2.0, 3.0], "aab", id="but for one post"),
        pytest.param([1.0, 1.0, 2.0], [1.0, 2.0, 3.0], "abc", id="but for one of several posts"),
    ],
)
def test_there_is_no_rank_correlation_without_a_spread(
    first: list[float], second: list[float], clusters: str
) -> None:
    assert rank_correlation(first, second, list(clusters), 0.95) is None


def test_a_rank_correlation_over_one_post_has_no_interval() -> None:
    found = rank_correlation([1.0, 2.0, 3.0], [1.0, 3.0, 2.0], ["a"] * 3, 0.95)
    assert found == Interval(0.5, -1.0, 1.0, 1)


def test_scores_of_different_numbers_have_no_rank_correlation() -> None:
    with pytest.raises(ValueError, match="2 and 1 scores in 2 clusters"):
        rank_correlation([1.0, 2.0], [1.0], ["a", "b"], 0.95)


def test_the_rank_correlations_interval_covers_the_truth() -> None:
    truth = stats.spearmanr(*two_judges(0, 100_000)[:2]).statistic
    hits = 0
    for seed in range(1, 401):
        found = rank_correlation(*two_judges(seed, 30), 0.95)
        assert found is not None
        hits += found.low <= truth <= found.high
    # Of 400 with 95% each, all but one in ten thousand runs lie in here.
    assert 0.905 <= hits / 400 <= 0.985


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [
        pytest.param([0.1, -0.2, 0.3], [0.5, -0.5, 0.25], 1.0, id="always the same"),
        pytest.param([0.1, -0.2, 0.3], [-0.5, 0.5, -0.25], 0.0, id="always another"),
        pytest.param([0.1, 0.2, 0.0], [0.0, 1e-6, 0.5], 0.5, id="a tie of either counts half"),
        pytest.param([0.0, 0.0], [0.0, 0.0], 0.5, id="a tie of both, too"),
        pytest.param([0.1, 0.1, 0.1, 0.1], [0.25, 0.25, -0.25, 0.0], 0.625, id="some of each"),
    ],
)
def test_the_same_preference_is_a_share_of_the_questions(
    first: list[float], second: list[float], share: float
) -> None:
    posts = [f"{row}" for row in range(len(first))]
    assert same_preference(first, second, posts, 0.95).mean == share


def test_the_same_preference_has_the_interval_of_a_mean_clustered_by_post() -> None:
    first, second = [0.1, 0.1, -0.1, 0.2, 0.3, 0.1], [0.2, -0.1, -0.1, 0.1, 0.0, 0.1]
    posts = list("aabbcc")
    expected = paired_difference([1.0, 0.0, 1.0, 1.0, 0.5, 1.0], [0.0] * 6, posts, 0.95)
    assert same_preference(first, second, posts, 0.95) == expected
