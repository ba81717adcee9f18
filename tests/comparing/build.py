"""Small judgements for the tests of `blogtune.comparing`."""

from collections.abc import Mapping, Sequence, Set
from itertools import chain
from typing import Any

from blogtune.checking.figures import Fitness
from blogtune.common.records import Answer, Judgement, Pair
from blogtune.comparing import compare as comparing
from blogtune.comparing.compare import Comparison
from blogtune.comparing.params import CompareParams

MODELS = ("base", "finetuned", "fused", "echo")


def pair(name: str, question: str, answer: str = "the reference", post: str | None = None) -> Pair:
    return Pair(id=name, post=post, question=question, answer=answer)


def answer(name: str, model: str = "base", text: str = "an answer", **values: Any) -> Answer:
    """An answer to question `name` of the post "p" + `name`, unless `values` say otherwise."""
    defaults: dict[str, Any] = {
        "post": f"p{name}",
        "question": f"question {name}?",
        "reference": "the reference",
        "stop": "end",
        "tokens": 3,
    }
    return Answer(id=name, model=model, answer=text, **{**defaults, **values})


def judgement(name: str, model: str, similarity: float | None, **values: Any) -> Judgement:
    """A judgement; keys of Judgement overwrite the defaults, all others go to the answer."""
    defaults: dict[str, Any] = {
        "method": "cosine",
        "partial_similarity": similarity,
        "other_references": 0.2 if similarity is not None else None,
        "truncated": False,
        "reason": None if similarity is not None else "timeout",
        "second": None,
        "facts": None,
    }
    own = {key: values.pop(key) for key in defaults if key in values}
    said = answer(name, model, values.pop("text", f"{model} says {name}"), **values)
    return Judgement(answer=said, similarity=similarity, **{**defaults, **own})


def judged(**scores: Sequence[float | None]) -> dict[str, list[Judgement]]:
    """Judgements of all MODELS by file; those not named score 0.5 throughout."""
    count = len(next(iter(scores.values())))
    files: dict[str, list[Judgement]] = {}
    for model in MODELS:
        given = scores.get(model, [0.5] * count)
        file = "baselines" if model == "echo" else model
        files[file] = [judgement(f"{row:03}", model, score) for row, score in enumerate(given)]
    return files


def compare(
    files: Mapping[str, Sequence[Judgement]], near: Set[str], found: Fitness, params: CompareParams
) -> Comparison:
    """As the library's, of judgements by file."""
    return comparing.compare([*chain.from_iterable(files.values())], near, found, params)


def fitness(**changes: Any) -> Fitness:
    """What the test of a fit judge found, without the figures that the verdict does not need."""
    values: dict[str, Any] = {
        "method": "cosine",
        "fit": True,
        "reasons": "",
        "blind_spots": "",
        "untested": "",
        "right": "paraphrase",
        "questions": 100,
        "posts": 70,
        "paraphrases": 70,
        "unmatched_paraphrases": 0,
        "probes": 1100,
        "unscored": 0.0,
        "auc_against": {},
        "similarity": {},
        "drop": {},
        "gain": {},
    }
    return Fitness.model_validate({**values, **changes})


def params(**changes: Any) -> CompareParams:
    values = {"candidate": "finetuned", "good": 0.7, "poor": 0.3, "confidence": 0.95}
    limits = {"min_posts": 10, "examples": 2}
    return CompareParams.model_validate({**values, **limits, **changes})
