"""Paired differences, and how two judges agree, with errors that are clustered by post.

A question is answered by both models, so its difference is taken first (Miller 2024, "Adding error
bars to evals", arXiv 2411.00640). Questions on one post are alike, so the post is what was sampled.
The interval is the estimate with a delete-one-post jackknife (CR3: Bell and McCaffrey 2002, "Bias
reduction in standard errors for linear regression with multi-stage samples") and Student's t with
posts - 1 degrees of freedom (Cameron and Miller 2015, "A practitioner's guide to cluster-robust
inference").
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]
# The same answer, judged in another batch, may score differently in the sixth decimal.
TIE = 1e-5
# A rank correlation is computed anew for each part left out, so many posts are left out together.
MOST_PARTS = 200


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval, from so many clusters.

    One cluster says nothing of how clusters differ: its interval is (-inf, inf).
    """

    mean: float
    low: float
    high: float
    clusters: int


@dataclass(frozen=True)
class Tally:
    """How many questions the candidate won, tied and lost."""

    wins: int
    ties: int
    losses: int


def paired_difference(
    candidate: Sequence[float] | Floats,
    base: Sequence[float] | Floats,
    clusters: Sequence[str],
    confidence: float,
) -> Interval:
    """Return the mean over the questions of candidate minus base, with its interval.

    All three have one entry for each question; a cluster is the question's post. Raises ValueError
    where there is no question, or where the lengths differ.
    """
    differences = np.subtract(candidate, base)
    interval = _intercept(np.ones((len(differences), 1)), differences, clusters, confidence)
    assert interval is not None, "a mean is determined by any one cluster"
    return interval


def difference_at_equal_length(
    candidate: Sequence[float] | Floats,
    base: Sequence[float] | Floats,
    length_change: Sequence[float] | Floats,
    clusters: Sequence[str],
    confidence: float,
) -> Interval | None:
    """Return what is left of the difference where the length is off by as much as before.

    `length_change` is |log(answer length / reference length)| of the candidate's answer minus that
    of the base's. The difference is regressed on it by least squares; its intercept is the
    difference at no change. None where the change varies too little to tell, with and without any
    one cluster. Raises ValueError as `paired_difference` does.
    """
    change = np.asarray(length_change, np.float64)
    design = np.column_stack([np.ones_like(change), change])
    return _intercept(design, np.subtract(candidate, base), clusters, confidence)


def tally(candidate: Sequence[float] | Floats, base: Sequence[float] | Floats) -> Tally:
    """Count the questions by who is better; a difference below TIE is a tie."""
    differences = np.subtract(candidate, base)
    wins, losses = int(np.sum(differences >= TIE)), int(np.sum(differences <= -TIE))
    return Tally(wins, len(differences) - wins - losses, losses)


def rank_correlation(
    one: Sequence[float] | Floats,
    other: Sequence[float] | Floats,
    clusters: Sequence[str],
    confidence: float,
) -> Interval | None:
    """Return Spearman's rank correlation of two judges' scores, one of each for each answer.

    None where one of them gives the same score throughout, with and without any one cluster. Of
    more than MOST_PARTS clusters several are left out at a time (Kott 2001, "The delete-a-group
    jackknife"). Raises ValueError as `paired_difference` does.
    """
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if not len(first) == len(second) == len(clusters) > 0:
        raise ValueError(f"{len(first)} and {len(second)} scores in {len(clusters)} clusters")
    part = _codes(clusters) % MOST_PARTS
    whole = _spearman(first, second)
    if whole is None:
        return None
    count = int(part.max()) + 1
    if count == 1:
        return Interval(whole, -1.0, 1.0, count)
    left_out = [_spearman(first[part != each], second[part != each]) for each in range(count)]
    kept = [found for found in left_out if found is not None]
    if len(kept) < count:
        return None
    reach = _reach(whole, np.array(kept), confidence)
    return Interval(whole, max(-1.0, whole - reach), min(1.0, whole + reach), count)


def same_preference(
    first: Sequence[float] | Floats,
    second: Sequence[float] | Floats,
    clusters: Sequence[str],
    confidence: float,
) -> Interval:
    """Return how often two judges prefer the same model, from their differences on each question.

    A tie of either judge counts half: it is neither agreement nor disagreement, and so 0.5 is what
    chance gives, however coarse a judge's scale. Raises ValueError as `paired_difference` does.
    """
    signs = [np.where(np.abs(each) < TIE, 0.0, np.sign(each)) for each in (first, second)]
    agreement = (1.0 + signs[0] * signs[1]) / 2.0
    return paired_difference(agreement, np.zeros_like(agreement), clusters, confidence)


def _intercept(
    design: Floats, outcome: Floats, clusters: Sequence[str], confidence: float
) -> Interval | None:
    """The first coefficient of least squares, or None where it is not determined.

    `design` is (questions x coefficients), `outcome` (questions,). Moments add up over clusters, so
    leaving one out is a subtraction.
    """
    if not len(design) == len(outcome) == len(clusters) > 0:
        raise ValueError(f"{len(outcome)} differences in {len(clusters)} clusters")
    squares = _sums(design[:, :, None] * design[:, None, :], clusters)
    products = _sums(design[:, :, None] * outcome[:, None, None], clusters)
    whole = _first_coefficients(squares.sum(0)[None], products.sum(0)[None])
    if whole is None:
        return None
    mean, count = float(whole[0]), len(squares)
    if count == 1:
        return Interval(mean, -math.inf, math.inf, count)
    left_out = _first_coefficients(squares.sum(0) - squares, products.sum(0) - products)
    if left_out is None:
        return None
    reach = _reach(mean, left_out, confidence)
    return Interval(mean, mean - reach, mean + reach, count)


def _reach(whole: float, left_out: Floats, confidence: float) -> float:
    """How far the interval reaches to either side, from the estimates without each cluster."""
    count = len(left_out)
    variance = (count - 1) / count * float(np.sum((left_out - whole) ** 2))
    return float(stdtrit(count - 1, 0.5 + confidence / 2)) * math.sqrt(variance)


def _spearman(one: Floats, other: Floats) -> float | None:
    """Pearson's correlation of the ranks, equal scores sharing theirs."""
    x, y = (pd.Series(each).rank().to_numpy() for each in (one, other))
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale else None


def _first_coefficients(squares: Floats, products: Floats) -> Floats | None:
    """Solve normal equations, (n x k x k) and (n x k x 1); None if one has no single answer."""
    if np.any(np.linalg.matrix_rank(squares, hermitian=True) < squares.shape[-1]):
        return None
    return np.linalg.solve(squares, products).astype(np.float64)[:, 0, 0]


def _sums(values: Floats, clusters: Sequence[str]) -> Floats:
    """The sum of `values` (questions x ...) over each cluster's questions, (clusters x ...)."""
    codes = _codes(clusters)
    sums = np.zeros((int(codes.max()) + 1, *values.shape[1:]))
    np.add.at(sums, codes, values)
    return sums


def _codes(clusters: Sequence[str]) -> NDArray[np.int64]:
    """A number for each cluster, from 0 on in the order of their first appearance."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(cluster, len(known)) for cluster in clusters], np.int64)
