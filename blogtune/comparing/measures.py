"""Figures as they stand in the metrics: of one model's scores, and of two models' differences."""

from typing import Any

import pandas as pd

from blogtune.comparing.params import CompareParams
from blogtune.statistics.clustered import Interval, paired_difference

Metrics = dict[str, Any]
FIGURES_OF_FACTS = ("precision", "recall", "f1")


def distribution(scores: "pd.Series[float]", params: CompareParams) -> Metrics:
    """How the scores lie; `sd` is the sample's, shares are those of the scored answers."""
    scored = scores.dropna()
    return {
        "mean": scored.mean(),
        "median": scored.median(),
        "sd": scored.std(),
        "good": (scored >= params.good).mean(),
        "poor": (scored <= params.poor).mean(),
        "coverage": len(scored) / len(scores),
    }


def facts(table: pd.DataFrame, params: CompareParams) -> Metrics:
    """The share of answers with all values right, and their precision, recall and F1.

    Nothing where no reference has a value to look for; `facts_measured` is how many have.
    """
    measured = table.dropna(subset=["facts_right"])
    if measured.empty:
        return {}
    right = measured["facts_right"].to_numpy()
    interval = paired_difference(right, 0.0 * right, measured["post"].tolist(), params.confidence)
    means = {f"facts_{name}": measured[f"facts_{name}"].mean() for name in FIGURES_OF_FACTS}
    return {"facts_right": figures(interval), **means, "facts_measured": len(measured)}


def scored_for_both(
    candidate: pd.DataFrame, base: pd.DataFrame, *measures: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The questions for which both models have all these measures."""
    rows = (candidate[[*measures]].notna() & base[[*measures]].notna()).all(axis="columns")
    return candidate[rows], base[rows]


def paired(
    candidate: pd.DataFrame, base: pd.DataFrame, measure: str, params: CompareParams
) -> Interval | None:
    """The paired difference, or None where no question was scored for both."""
    ours, theirs = scored_for_both(candidate, base, measure)
    if ours.empty:
        return None
    scores = ours[measure].to_numpy(), theirs[measure].to_numpy()
    return paired_difference(*scores, ours["post"].tolist(), params.confidence)


def figures(interval: Interval | None) -> Metrics:
    """Mean, low and high; nothing where there is no interval."""
    if interval is None:
        return {}
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}
