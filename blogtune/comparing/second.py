"""A second judge beside the first: its own figures, and whether the two agree. The first decides.

{"method": "likert logprobs",
 "base": {"mean": 0.41, "median": 0.4, "sd": 0.2, "good": 0.1, "poor": 0.3, "coverage": 1.0},
 "finetuned": {..., "difference": {"mean": 0.03, "low": -0.01, "high": 0.07}}, ...,
 "agreement": {"spearman": {"mean": 0.61, ...}, "same_preference": {"mean": 0.7, ...}}}
"""

from collections.abc import Mapping

import pandas as pd

from blogtune.answering.systems import subject_of
from blogtune.comparing.measures import Metrics, distribution, figures, paired, scored_for_both
from blogtune.comparing.params import CompareParams
from blogtune.statistics.clustered import rank_correlation, same_preference


def second_judge(tables: Mapping[str, pd.DataFrame], params: CompareParams) -> Metrics:
    """Return the second judge's figures; empty where there is none."""
    base = tables["base"]
    method = str(base["second_method"].iloc[0])
    if not method:
        return {}
    metrics: Metrics = {"method": method}
    for model, table in tables.items():
        metrics[model] = distribution(table["second"], params)
        if subject_of(model):
            metrics[model]["difference"] = figures(paired(table, base, "second", params))
    return metrics | {"agreement": _agreement(tables["finetuned"], base, params)}


def _agreement(finetuned: pd.DataFrame, base: pd.DataFrame, params: CompareParams) -> Metrics:
    """Over the answers of base and finetuned, and over the questions that have both answers.

    The baselines are left out: that both judges rank a random answer below a real one is no news.
    """
    both = pd.concat([base, finetuned]).dropna(subset=["similarity", "second"])
    ours, theirs = scored_for_both(finetuned, base, "similarity", "second")
    if ours.empty:
        return {}
    correlation = rank_correlation(
        both["similarity"].to_numpy(),
        both["second"].to_numpy(),
        both["post"].tolist(),
        params.confidence,
    )
    preference = same_preference(
        (ours["similarity"] - theirs["similarity"]).to_numpy(),
        (ours["second"] - theirs["second"]).to_numpy(),
        ours["post"].tolist(),
        params.confidence,
    )
    return {"spearman": figures(correlation), "same_preference": figures(preference)}
