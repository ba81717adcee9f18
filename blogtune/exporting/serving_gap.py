"""What serving costs: the served answers against the fused model's own, by the same judge.

{"name": "my-blog", "digest": "9c1f...", "quantization": "F16", "questions": 150, "mean": 0.449,
 "difference": {"mean": 0.001, "low": -0.002, "high": 0.004}, "equivalent": true, ...}
"""

from collections.abc import Sequence
from typing import Any

from blogtune.common.errors import UserError
from blogtune.common.records import Answer, Judgement, Pair
from blogtune.exporting.answers import Agreement
from blogtune.exporting.params import ExportParams
from blogtune.judging.judge import judge_answers
from blogtune.judging.params import JudgeParams
from blogtune.judging.protocol import Judge
from blogtune.statistics.clustered import paired_difference


def check_same_questions(fused: Sequence[Answer], pairs: Sequence[Pair], where: str) -> None:
    """Raise UserError where the fused model answered other questions than are to be asked."""
    if [answer.id for answer in fused] != [pair.id for pair in pairs] or not pairs:
        raise UserError(
            "not the answers to the questions of answer.split",
            where=where,
            remedy="run `dvc repro`",
        )


def serving_gap(
    served: Sequence[Answer],
    fused: Sequence[Answer],
    judge: Judge,
    judging: JudgeParams,
    params: ExportParams,
) -> dict[str, Any]:
    """Return the served answers' mean and their paired difference to the fused model's.

    The interval has `params.confidence`; `equivalent` says that it lies within `params.margin` on
    either side of 0. Raises UserError where no question has a score for both.
    """
    own_reference = judging.model_copy(update={"other_references": 0, "second": None})
    judged = list(judge_answers([*served, *fused], judge, own_reference))
    both = list(zip(judged[: len(served)], judged[len(served) :], strict=True))
    scores = [(a.similarity, b.similarity, _post(a)) for a, b in both]
    kept = [(a, b, post) for a, b, post in scores if a is not None and b is not None]
    if not kept:
        raise UserError(
            "no question has a score for both models", remedy="check the judge (`make judge`)"
        )
    ours, theirs, posts = zip(*kept, strict=True)
    found = paired_difference(ours, theirs, posts, params.confidence)
    return {
        "questions": len(served),
        "scored": len(kept),
        "mean": _rounded(sum(ours) / len(ours)),
        "fused_mean": _rounded(sum(theirs) / len(theirs)),
        "difference": {
            "mean": _rounded(found.mean),
            # One post says nothing of how posts differ; infinity is not JSON.
            **({} if found.clusters == 1 else _bounds(found.low, found.high)),
        },
        "equivalent": -params.margin < found.low and found.high < params.margin,
        "identical_answers": _rounded(
            sum(a.answer == b.answer for a, b in zip(served, fused, strict=True)) / len(served)
        ),
    }


def agreement_metrics(found: Agreement) -> dict[str, float]:
    """For metrics/export.json."""
    return {
        "positions": found.positions,
        "top1_agreement": _rounded(found.top1),
        "first_token_agreement": _rounded(found.first_token),
        "unread": found.unread,
    }


def _bounds(low: float, high: float) -> dict[str, float]:
    return {"low": _rounded(low), "high": _rounded(high)}


def _post(judgement: Judgement) -> str:
    """A question that names no post is a post of its own."""
    return judgement.answer.post or judgement.answer.id


def _rounded(value: float) -> float:
    return round(float(value), 6) + 0.0  # never -0.0
