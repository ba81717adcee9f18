"""From judgements to figures: each model by itself, each against base, and the verdict."""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from blogtune.answering.systems import subject_of
from blogtune.checking.figures import Fitness
from blogtune.common.errors import UserError
from blogtune.common.records import Judgement
from blogtune.comparing.examples import Change, biggest_changes
from blogtune.comparing.frames import frames
from blogtune.comparing.measures import (
    Metrics,
    distribution,
    figures,
    paired,
    scored_for_both,
)
from blogtune.comparing.params import CompareParams
from blogtune.comparing.second import second_judge
from blogtune.comparing.verdict import Evidence, outcome, sentence
from blogtune.statistics.clustered import Interval, difference_at_equal_length, tally


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    `metrics` is nested and holds all models side by side, whatever `compare.candidate` says;
    `similarity` describes that candidate alone. `means` has a row for each model that has a score:
    model, similarity.
    """

    metrics: Metrics
    similarity: Metrics
    examples: list[Change]
    means: pd.DataFrame


def compare(
    judgements: Sequence[Judgement],
    near_duplicates: Set[str],
    fitness: Fitness,
    params: CompareParams,
) -> Comparison:
    """Compare all judged models with base.

    `judgements` are those of all, each of its `answer.model`. `near_duplicates` are ids of test
    questions, `fitness` is what the judge's test found. Paired figures use the questions scored for
    both models. A key without a meaning is left out (DVC drops null in silence).

    Raises UserError where the judgements do not go together, as `frames` does, and where the judge
    was tested in another way than it judged.
    """
    tables = frames(judgements)
    base = tables["base"]
    _check_tested(str(base["method"].iloc[0]), fitness)
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
        if subject := subject_of(model):
            metrics[model] |= _closely(table, base, ~known, params)
            metrics[model] |= _verdict(subject, model, tables, fitness, params)
    metrics["second"] = second_judge(tables, params)
    return Comparison(
        metrics=_clean(metrics),
        similarity=_clean(_alone(tables[params.candidate], params)),
        examples=biggest_changes(judgements, params.examples),
        means=_means(tables),
    )


def _check_tested(method: str, fitness: Fitness) -> None:
    if fitness.method != method:
        raise UserError(
            f"the judge tested is {fitness.method}, the answers were judged by {method}",
            where="metrics/judge.json",
            remedy="run `dvc repro -f check_judge`",
        )


def _alone(table: pd.DataFrame, params: CompareParams) -> Metrics:
    """A model's own figures."""
    return distribution(table["similarity"], params) | {
        "partial_similarity": table["partial_similarity"].mean(),
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
    difference = figures(paired(candidate, base, "similarity", params))
    if ours.isna().any() or theirs.isna().any():
        difference["mean_low"] = (ours.fillna(0.0) - theirs.fillna(1.0)).mean()
        difference["mean_high"] = (ours.fillna(1.0) - theirs.fillna(0.0)).mean()
    beyond = figures(paired(candidate, base, "partial_similarity", params))
    return {"difference": difference, "partial_similarity_difference": beyond}


def _closely(
    candidate: pd.DataFrame, base: pd.DataFrame, new: NDArray[np.bool_], params: CompareParams
) -> Metrics:
    """Is the gain real? On questions new to it, on its own reference only, at equal length."""
    ours, theirs = scored_for_both(candidate, base, "similarity")
    counts = tally(ours["similarity"].to_numpy(), theirs["similarity"].to_numpy())
    unseen = paired(candidate[new], base[new], "similarity", params)
    return {
        "difference_without_near_duplicates": figures(unseen),
        # What brings an answer nearer to other posts' references too is manner, not knowledge.
        "specific_gain": figures(paired(candidate, base, "specific", params)),
        "at_equal_length": figures(_at_equal_length(candidate, base, params)),
        **asdict(counts),
    }


def _verdict(
    subject: str,
    model: str,
    tables: Mapping[str, pd.DataFrame],
    fitness: Fitness,
    params: CompareParams,
) -> Metrics:
    """The outcome as a word, and the sentence that people read."""
    candidate, base = tables[model], tables["base"]
    ours, _ = scored_for_both(candidate, base, "similarity")
    above_echo = math.nan  # nothing is above an echo that was not judged
    if "echo" in tables:
        above_echo = float((candidate["similarity"] - tables["echo"]["similarity"]).mean())
    evidence = Evidence(
        similarity=paired(candidate, base, "similarity", params),
        partial_similarity=paired(candidate, base, "partial_similarity", params),
        above_echo=above_echo,
        questions=len(ours),
        posts_named=int(ours["named"].sum()),
        fitness=fitness,
    )
    word, reason = outcome(evidence, params.min_posts)
    return {"outcome": word, "verdict": sentence(subject, word, reason, evidence)}


def _at_equal_length(
    candidate: pd.DataFrame, base: pd.DataFrame, params: CompareParams
) -> Interval | None:
    """Empty answers are left out here: their 0 stands in the difference itself."""
    ours, theirs = scored_for_both(candidate, base, "similarity", "length_off")
    if ours.empty:
        return None
    change = (ours["length_off"] - theirs["length_off"]).to_numpy()
    scores = ours["similarity"].to_numpy(), theirs["similarity"].to_numpy()
    return difference_at_equal_length(*scores, change, ours["post"].tolist(), params.confidence)


def _means(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    means = pd.Series({model: table["similarity"].mean() for model, table in tables.items()})
    return means.dropna().round(6).rename_axis("model").reset_index(name="similarity")


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
