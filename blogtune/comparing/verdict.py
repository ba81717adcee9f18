"""What may be said of a candidate, and no more: of this adapter, on this data, by this judge.

this adapter: improved; similarity +0.071 [+0.042, +0.100], partial similarity +0.080
[+0.051, +0.110], 84 questions in 70 posts, judged by cosine (judge passed its test; known blind
spots: negation)
"""

from dataclasses import dataclass
from typing import Literal

from blogtune.checking.figures import Fitness
from blogtune.statistics.clustered import Interval

Outcome = Literal["improved", "worse", "no evidence", "no verdict"]


@dataclass(frozen=True)
class Evidence:
    """What is known of a candidate against base.

    `similarity` is None where no question was scored for both, `partial_similarity` where the judge
    has no such measure. `above_echo` is how far the candidate's mean similarity lies above that of
    the echoed question. `posts_named` says how many of the `questions` name their post, `fitness`
    what the judge's own test found.
    """

    similarity: Interval | None
    partial_similarity: Interval | None
    above_echo: float
    questions: int
    posts_named: int
    fitness: Fitness


def outcome(evidence: Evidence, min_posts: int) -> tuple[Outcome, str]:
    """Return the outcome and, unless it speaks for itself, its reason.

    "improved" needs both intervals above 0; where the judge has but one measure, a mean similarity
    above the echo's as well. "worse" needs the similarity's interval below 0. There is no verdict
    by a judge that failed its test, nor with fewer than `min_posts` posts: the interval would be
    too narrow.
    """
    if not evidence.fitness.fit:
        return "no verdict", evidence.fitness.said()
    similarity = evidence.similarity
    if similarity is None:
        return "no verdict", "no question was scored for both"
    if similarity.clusters < min_posts:
        posts = _count(similarity.clusters, "post")
        return "no verdict", f"{posts}, at least {min_posts} are needed"
    if similarity.high < 0:
        return "worse", ""
    if similarity.low <= 0:
        return "no evidence", f"similarity's interval {_span(similarity)} contains 0"
    if evidence.partial_similarity is None:
        above = evidence.above_echo > 0
        return ("improved", "") if above else ("no evidence", "not above the echoed question")
    if evidence.partial_similarity.low <= 0:
        return "no evidence", "more similar, but partial similarity did not rise"
    return "improved", ""


def sentence(subject: str, word: Outcome, reason: str, evidence: Evidence) -> str:
    """Return the outcome in one line, with its reason, its figures and what it rests on."""
    said = f"{word} ({reason})" if reason else word
    judge = f"judged by {evidence.fitness.method}"
    if evidence.fitness.fit:
        judge += f" ({evidence.fitness.said()})"
    else:
        said = f"{word}: {reason}"  # the reason brings its own brackets
    figures = [
        f"{name} {signed(interval)}"
        for name, interval in (
            ("similarity", evidence.similarity),
            ("partial similarity", evidence.partial_similarity),
        )
        if interval is not None
    ]
    return f"{subject}: {said}; {', '.join([*figures, _basis(evidence), judge])}"


def signed(interval: Interval) -> str:
    """Return "+0.071 [+0.042, +0.100]"."""
    return f"{_signed(interval.mean)} {_span(interval)}"


def _span(interval: Interval) -> str:
    return f"[{_signed(interval.low)}, {_signed(interval.high)}]"


def _signed(value: float) -> str:
    # -0.0004 is -0.000, because the side of 0 is what the verdict says; 0 itself is +0.000.
    return f"{value + 0.0:+.3f}"


def _basis(evidence: Evidence) -> str:
    questions = _count(evidence.questions, "question")
    if evidence.posts_named == 0:
        return f"{questions} (none names its post: each counted as its own)"
    posts = 0 if evidence.similarity is None else evidence.similarity.clusters
    unnamed = evidence.questions - evidence.posts_named
    note = f" ({unnamed} without a post, each counted as its own)" if unnamed else ""
    return f"{questions} in {_count(posts, 'post')}{note}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
