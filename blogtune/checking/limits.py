"""The judge's figures held against the limits of `judge.check`."""

import math
from collections.abc import Iterator

from blogtune.checking.figures import SPOILED, WRONG, Figures, Fitness
from blogtune.judging.params import CheckParams


def judged_fit(figures: Figures, params: CheckParams) -> Fitness:
    """Return the figures with what follows from them."""
    reasons = [*_shortcomings(figures, params)]
    # Only data that name their facts have values to put in the place of others.
    tested = (*WRONG, "half", "negation", "numbers")
    untested = (kind for kind in tested if kind not in figures.similarity)
    return Fitness(
        **dict(figures),
        fit=not reasons,
        reasons="; ".join(reasons),
        blind_spots=", ".join(_blind_spots(figures, params)),
        untested=", ".join(untested),
    )


def _shortcomings(figures: Figures, params: CheckParams) -> Iterator[str]:
    """Why the judge is unfit; nothing where it is fit."""
    if figures.unscored > params.max_unscored:
        share, most = 100 * _up(figures.unscored), 100 * params.max_unscored
        yield f"{share:.0f}% without a score, above {most:g}%, mostly: {figures.unscored_reason}"
    elif (right := _right_answers(figures)) < params.min_right:
        count = f"only {right} right answer{'s' * (right > 1)}" if right else "no right answers"
        yield (
            f"{count} to test it with, at least {params.min_right} are needed; write more into "
            "judge.check.paraphrases"
        )
    elif figures.auc is None:
        yield "no wrong answer has a score"
    if figures.auc is not None and figures.auc < params.min_auc:
        yield f"AUC {_down(figures.auc):g} below {params.min_auc:g}"
    agreement = figures.retest_agreement
    if agreement is not None and agreement < params.min_retest_agreement:
        least = params.min_retest_agreement
        yield f"agreement with itself {_down(agreement):g} below {least:g}"
    for gain in figures.gain.values():
        if gain.mean > params.max_instruction_gain:
            most = params.max_instruction_gain
            yield f"a hidden instruction gains {_up(gain.mean):g}, above {most:g}"


def _right_answers(figures: Figures) -> int:
    """How many right answers the areas under the curve rest on: those with a score."""
    found = figures.similarity.get(figures.right)
    return found.n if found else 0


def _blind_spots(figures: Figures, params: CheckParams) -> Iterator[str]:
    """The kinds of wrong answer that it rates as it rates right ones."""
    for kind in WRONG:
        if figures.auc_against.get(kind, 1.0) < params.min_auc:
            yield kind.replace("_", " ")
    for kind in SPOILED:
        if kind in figures.drop and figures.drop[kind].mean < params.min_drop:
            yield kind.replace("_", " ")


def _down(value: float) -> float:
    """Two decimals, so that what is below a limit never reads as the limit."""
    return math.floor(round(value * 100, 6)) / 100


def _up(value: float) -> float:
    return math.ceil(round(value * 100, 6)) / 100
