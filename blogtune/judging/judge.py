"""From answers to judgements: what is asked of the judge, and what is settled without it."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from blogtune.errors import UserError
from blogtune.judging.embedding import EmbeddingJudge
from blogtune.judging.params import JudgeParams
from blogtune.judging.protocol import Item, Judge, Verdict
from blogtune.records import Answer, Judgement

EMPTY = Verdict(similarity=0.0, beyond_question=0.0, reason="empty answer")


def open_judge(params: JudgeParams, folder: Path) -> Judge:
    """The judge that `judge.kind` names, from the fetched `folder`."""
    if params.kind == "embedding":
        return EmbeddingJudge(folder)
    raise UserError(f"judge.kind: {params.kind} cannot judge yet; use embedding")


def judge_answers(
    answers: Sequence[Answer], judge: Judge, params: JudgeParams
) -> Iterator[Judgement]:
    """Judge each answer against its own reference and against `params.elsewhere` of other posts.

    An empty answer is the model's failure: it scores 0 and asks no judge. What the judge cannot
    score stays in place without a score, with the judge's reason.
    """
    pool = sorted({(_post(answer), answer.reference) for answer in answers})
    references = [[answer.reference, *_elsewhere(answer, pool, params)] for answer in answers]
    items = [
        Item(answer.question, reference, answer.answer)
        for answer, those in zip(answers, references, strict=True)
        for reference in those
        if answer.answer
    ]
    verdicts = iter(tqdm(judge.judge(items), "judge", len(items), delay=2, disable=None))
    for answer, those in zip(answers, references, strict=True):
        given = [next(verdicts) if answer.answer else EMPTY for _ in those]
        yield _judgement(answer, judge.method, given)


def _judgement(answer: Answer, method: str, verdicts: Sequence[Verdict]) -> Judgement:
    own, *others = verdicts
    scores = [verdict.similarity for verdict in others if verdict.similarity is not None]
    return Judgement(
        answer=answer,
        method=method,
        similarity=_rounded(own.similarity),
        beyond_question=_rounded(own.beyond_question),
        elsewhere=_rounded(float(np.mean(scores)) if scores else None),
        truncated=own.truncated,
        reason=own.reason,
    )


def _elsewhere(answer: Answer, pool: list[tuple[str, str]], params: JudgeParams) -> list[str]:
    """References of other posts, chosen by the seed and the question alone."""
    seed = hashlib.sha256(f"{params.seed}:{answer.id}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(seed[:8], "big"))
    drawn = (pool[index] for index in random.permutation(len(pool)))
    others = (reference for post, reference in drawn if post != _post(answer))
    return list(islice(others, params.elsewhere))


def _post(answer: Answer) -> str:
    return answer.post or answer.id


def _rounded(score: float | None) -> float | None:
    """Six decimals: more than any judge knows, and the same bytes on every run."""
    return None if score is None else round(score, 6)
