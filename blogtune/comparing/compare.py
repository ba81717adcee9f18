"""From judgements to figures: each model by itself, each against base, and the verdict."""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from blogtune.comparing.examples import Change, biggest_changes
from blogtune.comparing.frames import frames
from blogtune.comparing.params import CompareParams
from blogtune.comparing.statistics import (
    Interval,
    difference_at_equal_length,
    paired_difference,
    tally,
)
from blogtune.comparing.verdict import Evidence, sentence
from blogtune.records import Judgement

SUBJECTS = {"finetuned": "this adapter", "fused": "this adapter, fused"}
Metrics = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    `metrics` is nested and holds all models side by side, whatever `compare.candidate` says;
    `similarity` describes that candidate alone. `distributions` has a row for each model and
    question: model, id, similarity, beyond_question.
    """

    metrics: Metrics
    similarity: Metrics
    examples: list[Change]
    distributions: pd.DataFrame


def compare(
    judgements: Mapping[str, Sequence[Judgement]], near_duplicates: Set[str], params: CompareParams
) -> Comparison:
    """Compare all judged models with base.

    `judgements` holds those of each file (base, finetuned, fused, baselines); the model is
    `answer.model`. `near_duplicates` are ids of test questions. Paired figures use the questions
    scored for both models. A key without a meaning is left out (DVC drops null in silence).

    Raises UserError where the judgements do not go together or lack scores, as `frames` does.
    """
    rows = list(chain.from_iterable(judgements.values()))
    tables = frames(rows)
    base = tables["base"]
    known = base.index.isin(list(near_duplicates))
    metrics: Metrics = {
        "questions": len(base),
        "posts": base["post"].nunique(),
        "near_duplicates": int(known.sum()),
        "confidence": params.confidence,
    }
    for model, table in tables.items():
        metrics[model] = _alone(table, params) | _bounds(table["similarity"])
        if model != "base":
            metrics[model] |= _against(table, base, params)
        if model in SUBJECTS:
            metrics[model] |= _closely(table, base, ~known, params)
            metrics[model]["verdict"] = _verdict(model, tables, params)
    return Comparison(
        metrics=_clean(metrics),
        similarity=_clean(_alone(tables[params.candidate], params)),
        examples=biggest_changes(rows, params.examples),
        distributions=_distributions(tables),
    )


def _alone(table: pd.DataFrame, params: CompareParams) -> Metrics:
    """A model's own figures; `sd` is the sample's, shares are those of the scored answers."""
    scores = table["similarity"].dropna()
    return {
        "mean": scores.mean(),
        "median": scores.median(),
        "sd": scores.std(),
        "good": (scores >= params.good).mean(),
        "poor": (scores <= params.poor).mean(),
        "coverage": len(scores) / len(table),
        "beyond_question": table["beyond_question"].mean(),
        "empty": int(table["empty"].sum()),
        "cut": int(table["cut"].sum()),
    }


def _bounds(scores: "pd.Series[float]") -> Metrics:
    """How many answers have no score, and the mean if those had 0, and if they had 1."""
    unscored = int(scores.isna().sum())
    if not unscored:
        return {"unscored": 0}
    low, high = scores.fillna(0.0).mean(), scores.fillna(1.0).mean()
    return {"unscored": unscored, "mean_low": low, "mean_high": high}


def _against(candidate: pd.DataFrame, base: pd.DataFrame, params: CompareParams) -> Metrics:
    """The paired differences that every model has; bounds with the missing scores at 0 and at 1."""
    ours, theirs = candidate["similarity"], base["similarity"]
    difference = _figures(_difference(candidate, base, "similarity", params))
    if ours.isna().any() or theirs.isna().any():
        difference["mean_low"] = (ours.fillna(0.0) - theirs.fillna(1.0)).mean()
        difference["mean_high"] = (ours.fillna(1.0) - theirs.fillna(0.0)).mean()
    beyond = _figures(_difference(candidate, base, "beyond_question", params))
    return {"difference": difference, "beyond_question_difference": beyond}


def _closely(
    candidate: pd.DataFrame, base: pd.DataFrame, new: NDArray[np.bool_], params: CompareParams
) -> Metrics:
    """Is the gain real? On questions new to it, on its own reference only, at equal length."""
    ours, theirs = _both(candidate, base, "similarity")
    counts = tally(ours["similarity"].to_numpy(), theirs["similarity"].to_numpy())
    unseen = _difference(candidate[new], base[new], "similarity", params)
    return {
        "difference_without_near_duplicates": _figures(unseen),
        # What brings an answer nearer to other posts' references too is manner, not knowledge.
        "specific_gain": _figures(_difference(candidate, base, "specific", params)),
        "at_equal_length": _figures(_at_equal_length(candidate, base, params)),
        **asdict(counts),
    }


def _verdict(model: str, tables: Mapping[str, pd.DataFrame], params: CompareParams) -> str:
    candidate, base = tables[model], tables["base"]
    ours, _ = _both(candidate, base, "similarity")
    above_echo = math.nan  # nothing is above an echo that was not judged
    if "echo" in tables:
        above_echo = float((candidate["similarity"] - tables["echo"]["similarity"]).mean())
    evidence = Evidence(
        similarity=_difference(candidate, base, "similarity", params),
        beyond_question=_difference(candidate, base, "beyond_question", params),
        above_echo=above_echo,
        questions=len(ours),
        posts_named=int(ours["named"].sum()),
        method=str(base["method"].iloc[0]),
    )
    return sentence(SUBJECTS[model], evidence, params.min_posts)


def _both(
    candidate: pd.DataFrame, base: pd.DataFrame, *measures: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The questions for which both models have all these measures."""
    rows = (candidate[[*measures]].notna() & base[[*measures]].notna()).all(axis="columns")
    return candidate[rows], base[rows]


def _difference(
    candidate: pd.DataFrame, base: pd.DataFrame, measure: str, params: CompareParams
) -> Interval | None:
    ours, theirs = _both(candidate, base, measure)
    if ours.empty:
        return None
    scores = ours[measure].to_numpy(), theirs[measure].to_numpy()
    return paired_difference(*scores, ours["post"].tolist(), params.confidence)


def _at_equal_length(
    candidate: pd.DataFrame, base: pd.DataFrame, params: CompareParams
) -> Interval | None:
    """Empty answers are left out here: their 0 stands in the difference itself."""
    ours, theirs = _both(candidate, base, "similarity", "length_off")
    if ours.empty:
        return None
    change = (ours["length_off"] - theirs["length_off"]).to_numpy()
    scores = ours["similarity"].to_numpy(), theirs["similarity"].to_numpy()
    return difference_at_equal_length(*scores, change, ours["post"].tolist(), params.confidence)


def _figures(interval: Interval | None) -> Metrics:
    if interval is None:
        return {}
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def _distributions(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    columns = ["model", "id", "similarity", "beyond_question"]
    return pd.concat([table.reset_index()[columns] for table in tables.values()])


def _clean(metrics: Metrics) -> Metrics:
    """Six decimals, and no key whose value says nothing (not a number, without a bound, empty)."""
    kept: Metrics = {}
    for key, value in metrics.items():
        if isinstance(value, dict):
            if inner := _clean(cast("Metrics", value)):
                kept[key] = inner
        elif not isinstance(value, float):
            kept[key] = value
        elif math.isfinite(value):
            kept[key] = round(float(value), 6) + 0.0  # never -0.0
    return kept
