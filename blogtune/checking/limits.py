"""The judge's figures held against the limits of `judge.check`."""

import math
from collections.abc import Iterator

from blogtune.checking.figures import SPOILED, WRONG, Figures, Fitness
from blogtune.judging.params import CheckParams

# Shares of the references' tokens above which a sentence encoder cannot read their language: its
# vocabulary has no piece for them, or only single letters. all-MiniLM-L6-v2: English 0 and 0.02,
# German and Portuguese 0 and 0.1, Arabic 0 and 0.97, Chinese 0.6 and 0.
MOST_UNKNOWN = 0.05
MOST_SPELLED = 0.3
MULTILINGUAL = "hub:sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"


def judged_fit(figures: Figures, params: CheckParams) -> Fitness:
    """Return the figures with what follows from them."""
    reasons = [*_shortcomings(figures, params)]
    untested = (kind for kind in (*WRONG, *SPOILED) if kind not in figures.similarity)
    return Fitness(
        **dict(figures),
        fit=not reasons,
        reasons="; ".join(reasons),
        blind_spots=", ".join(_blind_spots(figures, params)),
        untested=", ".join(untested),
    )


def _shortcomings(figures: Figures, params: CheckParams) -> Iterator[str]:
    """Why the judge is unfit; nothing where it is fit."""
    unknown, spelled = figures.unknown_tokens or 0.0, figures.spelled_tokens or 0.0
    if unknown > MOST_UNKNOWN or spelled > MOST_SPELLED:
        found = (
            f"{100 * _up(unknown):.0f}% of the references' tokens are unknown to it, above "
            f"{100 * MOST_UNKNOWN:g}%"
            if unknown > MOST_UNKNOWN
            else f"it reads {100 * _up(spelled):.0f}% of the references' tokens as single letters, "
            f"above {100 * MOST_SPELLED:g}%"
        )
        yield (
            f"{found}: it cannot read this language; set judge.model.source to a multilingual "
            f"encoder ({MULTILINGUAL}), or judge.kind to ollama or mlx"
        )
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
        yield f"retest agreement {_down(agreement):g} below {least:g}"
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
            yield kind


def _down(value: float) -> float:
    """Two decimals, so that what is below a limit never reads as the limit."""
    return math.floor(round(value * 100, 6)) / 100


def _up(value: float) -> float:
    return math.ceil(round(value * 100, 6)) / 100
