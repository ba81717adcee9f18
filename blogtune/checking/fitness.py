"""Is this judge fit to decide? How it scores answers whose label is known."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from blogtune.checking.figures import SPOILED, WRONG, Figures, Fitness, Kind, Mean
from blogtune.checking.limits import judged_fit
from blogtune.checking.probes import Paraphrase, Probe, build_probes, match
from blogtune.common.errors import UserError
from blogtune.common.progress import progress
from blogtune.common.records import Pair
from blogtune.judging.embedding import EmbeddingJudge
from blogtune.judging.params import CheckParams
from blogtune.judging.protocol import Judge, Verdict
from blogtune.statistics.clustered import paired_difference

CONFIDENCE = 0.95
# With fewer an interval would be too narrow.
POSTS_FOR_AN_INTERVAL = 10
RETESTED_PROBES = 50
SAME_SCORE = 0.05

K = TypeVar("K")
V = TypeVar("V")


def measure_fitness(
    judge: Judge,
    afresh: Judge,
    pairs: Sequence[Pair],
    paraphrases: Sequence[Paraphrase],
    params: CheckParams,
) -> Fitness:
    """Test the judge with probes made from `pairs`.

    `afresh` is the same judge without its memory: a sample is asked there again. Raises UserError
    where too many probes have no score because the server failed.
    """
    matched = match(paraphrases, pairs)
    probes = build_probes(pairs, matched, params)
    asked = judge.judge([probe.item for probe in probes])
    verdicts = list(progress(asked, desc="judge's test", unit="probes", total=len(probes)))
    _check_server(verdicts, params)
    scores = _Scores(probes, verdicts)
    reading = (
        judge.reading([pair.answer for pair in pairs])
        if isinstance(judge, EmbeddingJudge)
        else None
    )
    right = "paraphrase" if matched else "reordered"
    figures = Figures(
        method=judge.method,
        right=right,
        questions=len(scores.posts),
        posts=len(set(scores.posts.values())),
        paraphrases=sum(probe.kind == "paraphrase" for probe in probes),
        unmatched_paraphrases=len(paraphrases) - len(matched),
        probes=len(probes),
        unscored=_rounded(1 - len(scores.scored) / len(probes)),
        unscored_reason=_most_frequent_reason(verdicts),
        retest_agreement=_retest_agreement(afresh, scores.scored, params),
        auc=scores.auc(right, *WRONG),
        auc_against=_present({kind: scores.auc(right, kind) for kind in WRONG}),
        similarity={kind: scores.mean(found) for kind, found in scores.of.items()},
        drop=_present({kind: scores.difference("identity", kind) for kind in SPOILED}),
        gain=_present({"instruction": scores.difference("instruction", "other_post")}),
        unknown_tokens=_rounded(reading.unknown) if reading else None,
        spelled_tokens=_rounded(reading.spelled) if reading else None,
    )
    return judged_fit(figures, params)


class _Scores:
    """The scores `of` each kind by question id, those without a score left out."""

    def __init__(self, probes: Sequence[Probe], verdicts: Sequence[Verdict]) -> None:
        self.posts = {probe.pair.id: probe.post for probe in probes}
        self.scored: list[tuple[Probe, float]] = []
        self.of: dict[Kind, dict[str, float]] = {}
        for probe, verdict in zip(probes, verdicts, strict=True):
            if verdict.similarity is not None:
                self.scored.append((probe, verdict.similarity))
                self.of.setdefault(probe.kind, {})[probe.pair.id] = verdict.similarity

    def auc(self, right: Kind, *wrong: Kind) -> float | None:
        """How often a right answer scores above a wrong one, a tie counting half.

        This is the area under the ROC curve (Hanley and McNeil 1982, "The meaning and use of the
        area under a receiver operating characteristic curve").
        """
        above = np.array(list(self.of.get(right, {}).values()))
        below = np.sort([score for kind in wrong for score in self.of.get(kind, {}).values()])
        if not len(above) or not len(below):
            return None
        ranks = np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")
        return _rounded(float(ranks.mean()) / 2 / len(below))

    def difference(self, upper: Kind, lower: Kind) -> Mean | None:
        """The mean difference over the questions that have both."""
        ours, theirs = self.of.get(upper, {}), self.of.get(lower, {})
        both = {
            question: ours[question] - theirs[question] for question in ours if question in theirs
        }
        return self.mean(both) if both else None

    def mean(self, values: Mapping[str, float]) -> Mean:
        """The mean over the questions, its interval clustered by post."""
        clusters = [self.posts[question] for question in values]
        scores = list(values.values())
        found = paired_difference(scores, np.zeros(len(scores)), clusters, CONFIDENCE)
        if found.clusters < POSTS_FOR_AN_INTERVAL:
            return Mean(n=len(scores), mean=_rounded(found.mean))
        low, high = _rounded(found.low), _rounded(found.high)
        return Mean(n=len(scores), mean=_rounded(found.mean), low=low, high=high)


def _retest_agreement(
    afresh: Judge, scored: Sequence[tuple[Probe, float]], params: CheckParams
) -> float | None:
    """The share of a sample that gets the same score again, asked in another order."""
    if not scored:
        return None
    drawn = np.random.default_rng(params.seed).permutation(len(scored))[:RETESTED_PROBES]
    again = list(afresh.judge([scored[index][0].item for index in drawn]))
    _check_server(again, params)
    before = [scored[index][1] for index in drawn]
    agreeing = [
        verdict.similarity is not None and abs(verdict.similarity - score) <= SAME_SCORE
        for verdict, score in zip(again, before, strict=True)
    ]
    return _rounded(float(np.mean(agreeing)))


def _check_server(verdicts: Sequence[Verdict], params: CheckParams) -> None:
    """A server that was not there says nothing of the judge: no test, rather than a bad one."""
    counts = Counter(verdict.reason for verdict in verdicts if verdict.server_failed)
    if counts.total() > params.max_unscored * len(verdicts):
        told = ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())
        raise UserError(
            f"{counts.total()} of {len(verdicts)} probes have no score ({told})",
            where="judge's test",
            remedy="check the judge's server and run it again; only what is missing is asked",
        )


def _most_frequent_reason(verdicts: Sequence[Verdict]) -> str | None:
    reasons = (verdict.reason for verdict in verdicts if verdict.similarity is None)
    counts = Counter(reason or "no reason given" for reason in reasons)
    return counts.most_common(1)[0][0] if counts else None


def _present(values: Mapping[K, V | None]) -> dict[K, V]:
    return {key: value for key, value in values.items() if value is not None}


def _rounded(value: float) -> float:
    return round(value, 6) + 0.0  # never -0.0
