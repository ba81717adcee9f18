"""From answers to judgements: what is asked of the judge, and what is settled without it."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from blogtune.common.errors import UserError
from blogtune.common.progress import progress
from blogtune.common.records import Answer, Judgement, Second
from blogtune.judging.cache import CachedJudge, open_cache
from blogtune.judging.embedding import EmbeddingJudge
from blogtune.judging.params import JudgeParams, OneJudge
from blogtune.judging.protocol import Item, Judge, LanguageJudge, Verdict

EMPTY = Verdict(similarity=0.0, partial_similarity=0.0, reason="empty answer")


def open_judge(params: OneJudge, folder: Path) -> Judge:
    """The judge that `params.kind` names, its model in the fetched `folder`.

    A language model's verdicts come from the cache where it has them. Raises UserError where the
    model cannot be had.
    """
    if params.kind == "embedding":
        return EmbeddingJudge(folder)
    return CachedJudge(_language_judge(params, folder), open_cache())


def judge_answers(
    answers: Sequence[Answer], judge: Judge, params: JudgeParams, second: Judge | None = None
) -> Iterator[Judgement]:
    """Judge each answer against its own reference and `params.other_references` of other posts.

    A second judge is asked about the own reference only. An empty answer is the model's failure:
    it scores 0 and asks no judge. What the judge cannot score stays in place without a score, with
    the judge's reason.
    """
    pool = sorted({(_post(answer), answer.reference) for answer in answers})
    references = [
        [answer.reference, *_other_references(answer, pool, params)] for answer in answers
    ]
    items = [
        Item(answer.question, reference, answer.answer, answer.context)
        for answer, those in zip(answers, references, strict=True)
        for reference in those
        if answer.answer
    ]
    own = [
        Item(each.question, each.reference, each.answer, each.context)
        for each in answers
        if each.answer
    ]
    verdicts = _verdicts(judge, items, "judge")
    others = _verdicts(second, own, "second judge") if second else iter(())
    for answer, those in zip(answers, references, strict=True):
        given = [next(verdicts) if answer.answer else EMPTY for _ in those]
        other = _second(second, next(others) if answer.answer else EMPTY) if second else None
        yield _judgement(answer, judge.method, given, other)


def check_coverage(name: str, judgements: Sequence[Judgement], least: float) -> None:
    """Raise UserError where one of the judges scored a smaller share than `least`."""
    seconds = [judgement.second for judgement in judgements if judgement.second]
    for who, scores in (("judge", judgements), ("judge.second", seconds)):
        unscored = [each.reason or "no reason given" for each in scores if each.similarity is None]
        scored = len(scores) - len(unscored)
        if unscored and scored / len(scores) < least:
            counts = Counter(unscored).most_common()
            reasons = ", ".join(f"{reason}: {count}" for reason, count in counts)
            raise UserError(
                f"{scored} of {len(scores)} answers have a score by {who}, judge.min_coverage is "
                f"{least} ({reasons})",
                where=name,
                remedy="see to the judge, then run `dvc repro` again: only what is missing is "
                "asked",
            )


def identity(params: OneJudge, folder: Path) -> Mapping[str, object] | None:
    """What marks this judge's verdicts in the cache; None where none are kept."""
    if params.kind == "embedding":
        return None
    if params.kind == "ollama":
        from blogtune.judging.ollama import ollama_identity

        return ollama_identity(params)
    from blogtune.judging.mlx import mlx_identity

    return mlx_identity(params, folder)


def _language_judge(params: OneJudge, folder: Path) -> LanguageJudge:
    # Here, because each of them loads a library that the other does without.
    if params.kind == "ollama":
        from blogtune.judging.ollama import open_ollama_judge

        return open_ollama_judge(params)
    from blogtune.judging.mlx import MlxJudge

    return MlxJudge(params, folder)


def _verdicts(judge: Judge, items: Sequence[Item], title: str) -> Iterator[Verdict]:
    """All of one judge's verdicts, before another is asked: none waits unread for a kill."""
    return iter(list(progress(judge.judge(items), desc=title, unit="items", total=len(items))))


def _judgement(
    answer: Answer, method: str, verdicts: Sequence[Verdict], second: Second | None
) -> Judgement:
    own, *others = verdicts
    scores = [verdict.similarity for verdict in others if verdict.similarity is not None]
    return Judgement(
        answer=answer,
        method=method,
        similarity=_rounded(own.similarity),
        partial_similarity=_rounded(own.partial_similarity),
        other_references=_rounded(float(np.mean(scores)) if scores else None),
        truncated=own.truncated,
        reason=own.reason,
        second=second,
    )


def _second(judge: Judge, verdict: Verdict) -> Second:
    similarity = _rounded(verdict.similarity)
    return Second(method=judge.method, similarity=similarity, reason=verdict.reason)


def _other_references(
    answer: Answer, pool: list[tuple[str, str]], params: JudgeParams
) -> list[str]:
    """References of other posts, chosen by the seed and the question alone."""
    seed = hashlib.sha256(f"{params.seed}:{answer.id}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(seed[:8], "big"))
    drawn = (pool[index] for index in random.permutation(len(pool)))
    others = (reference for post, reference in drawn if post != _post(answer))
    return list(islice(others, params.other_references))


def _post(answer: Answer) -> str:
    return answer.post or answer.id


def _rounded(score: float | None) -> float | None:
    """Six decimals: more than any judge knows, and the same bytes on every run."""
    return None if score is None else round(score, 6)
