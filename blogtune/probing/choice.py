"""Forced choice by likelihood: is the reference the likeliest of all its candidates?

After Ovadia et al. 2023, "Fine-tuning or retrieval? Comparing knowledge injection in LLMs" (arXiv
2312.05934), whose models choose among answers by log-likelihood. That is the main score here too,
for each token. PMI stands beside it: where an answer names its own subject, a model that knows the
fact finds it likely without the question as well, and PMI takes that knowledge out.

A row of data/knowledge.jsonl:

    {"id": "5f0c3a9b2d417e68", "post": "https://blog.example/oxbow", "question": "How many ...?",
     "candidates": [
       {"kind": "reference", "text": "There are 44 beds.",
        "scores": {"base": {"asked": -2.31, "unasked": -3.05}, "finetuned": {...}}},
       {"kind": "other_value", "text": "There are 38 beds.", "scores": {...}}]}
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from blogtune.common.records import Pair, Record
from blogtune.probing.distractors import KINDS, Distractor, Kind
from blogtune.probing.likelihood import Question, Score
from blogtune.statistics.clustered import TIE, Interval, paired_difference

CONFIDENCE = 0.95
MODELS = ("base", "finetuned")
Measure = Literal["asked", "pmi"]


class Likelihoods(Record):
    """A model's mean log-likelihood of a text, in nats a token, with the question and without."""

    asked: float
    unasked: float


class Candidate(Record):
    """One of the answers to choose among, with the scores of each model."""

    kind: Kind | Literal["reference"]
    text: str
    scores: dict[str, Likelihoods]

    def value(self, model: str, measure: Measure) -> float:
        """The likelihood behind the question, or PMI."""
        found = self.scores[model]
        return found.asked - found.unasked if measure == "pmi" else found.asked


class Item(Record):
    """A question with its candidates, the reference first."""

    id: str
    post: str | None
    question: str
    candidates: list[Candidate]


def question(pair: Pair, distractors: Sequence[Distractor]) -> Question:
    """What is asked of a model: the reference first, then the distractors."""
    return Question(
        pair.question, [pair.answer, *(each.text for each in distractors)], pair.context
    )


def items(
    pairs: Sequence[Pair],
    distractors: Sequence[Sequence[Distractor]],
    scores: Mapping[str, Sequence[Sequence[Score | None]]],
) -> list[Item]:
    """The questions that have something to choose among. `scores` are by model.

    What the network cannot read as a whole is no candidate; a question whose reference is that, or
    that is left without a distractor, is no item.
    """
    found: list[Item] = []
    for number, (pair, wrong) in enumerate(zip(pairs, distractors, strict=True)):
        texts = [("reference", pair.answer), *((each.kind, each.text) for each in wrong)]
        rows = [of_model[number] for of_model in scores.values()]
        columns = zip(texts, zip(*rows, strict=True), strict=True)
        candidates = [
            _candidate(kind, text, dict(zip(scores, of_text, strict=True)))
            for (kind, text), of_text in columns
            if None not in of_text
        ]
        if len(candidates) > 1 and candidates[0].kind == "reference":
            found.append(
                Item(id=pair.id, post=pair.post, question=pair.question, candidates=candidates)
            )
    return found


def knowledge(items: Sequence[Item], questions: int) -> dict[str, Any]:
    """What metrics/knowledge.json says of them; `questions` is how many there were to begin with.

    For all distractors together and for each kind: `chance`, the share of right choices of one who
    knows nothing, then each model's share and their paired difference, clustered by post; in `pmi`
    the same with what an empty question gives taken out.
    """
    kinds: dict[str, tuple[str, ...]] = {"all": KINDS, **{kind: (kind,) for kind in KINDS}}
    figures = {name: _figures(items, among) for name, among in kinds.items()}
    return {
        "questions": questions,
        "without_distractors": questions - len(items),
        "confidence": CONFIDENCE,
        **{name: found for name, found in figures.items() if found},
    }


def credit(reference: float, others: Iterable[float]) -> float:
    """1 where the reference is above all others, 0 where one is above it; those that tie share."""
    values = [*others]
    if any(value > reference + TIE for value in values):
        return 0.0
    return 1 / (1 + sum(abs(value - reference) <= TIE for value in values))


def _candidate(kind: Any, text: str, scores: Mapping[str, Score | None]) -> Candidate:
    likelihoods = {
        model: Likelihoods(asked=round(each.asked, 6), unasked=round(each.unasked, 6))
        for model, each in scores.items()
        if each is not None
    }
    return Candidate(kind=kind, text=text, scores=likelihoods)


def _figures(items: Sequence[Item], kinds: Sequence[str]) -> dict[str, Any]:
    """The figures among the distractors of these kinds; none where no question has any."""
    asked = [item for item in items if any(each.kind in kinds for each in item.candidates)]
    if not asked:
        return {}
    counts = [sum(each.kind in kinds for each in item.candidates) for item in asked]
    return {
        "questions": len(asked),
        "posts": len({_post(item) for item in asked}),
        "distractors": sum(counts),
        "chance": round(float(np.mean([1 / (1 + count) for count in counts])), 6),
        **_models(asked, kinds, "asked"),
        "pmi": _models(asked, kinds, "pmi"),
    }


def _models(items: Sequence[Item], kinds: Sequence[str], measure: Measure) -> dict[str, Any]:
    posts = [_post(item) for item in items]
    shares = {
        model: np.array([_credit(item, kinds, model, measure) for item in items])
        for model in MODELS
    }
    nothing = np.zeros(len(items))
    of_base, of_finetuned = (shares[model] for model in MODELS)
    return {
        **{
            model: _interval(paired_difference(shares[model], nothing, posts, CONFIDENCE))
            for model in MODELS
        },
        "difference": _interval(paired_difference(of_finetuned, of_base, posts, CONFIDENCE)),
    }


def _credit(item: Item, kinds: Sequence[str], model: str, measure: Measure) -> float:
    reference, *others = item.candidates
    wrong = (each.value(model, measure) for each in others if each.kind in kinds)
    return credit(reference.value(model, measure), wrong)


def _interval(found: Interval) -> dict[str, float]:
    """As in metrics/comparison.json; the ends are left out where one post says nothing of them."""
    values = {"mean": found.mean, "low": found.low, "high": found.high}
    return {
        name: round(value, 6) + 0.0  # never -0.0
        for name, value in values.items()
        if math.isfinite(value)
    }


def _post(item: Item) -> str:
    return item.post or item.id
