"""Judgements as pandas tables, one for each model, with the same questions in the same order."""

import math
from collections.abc import Sequence
from itertools import chain

import pandas as pd

from blogtune.answering.systems import SYSTEMS
from blogtune.common.errors import UserError
from blogtune.common.records import Answer, Judgement

_MEASURES = ("similarity", "partial_similarity", "other_references", "second", "length_off")
_COLUMNS = ("model", "id", "post", "named", "method", "second_method", *_MEASURES, "empty", "cut")


def frames(judgements: Sequence[Judgement]) -> dict[str, pd.DataFrame]:
    """Return a table for each model, its rows the questions by id; `SYSTEMS` first.

    A question that names no post is a post of its own (`named`: whether it names one). `length_off`
    is |log(answer length / reference length)| in characters, `specific` the similarity minus that
    to references of other posts, `second` the second judge's similarity. What has no value is NaN.

    Raises UserError where one of those is missing, and where a model was judged on other
    questions or in another way than base.
    """
    tables = _by_model(judgements)
    for model, table in tables.items():
        _check_match(model, table, tables["base"])
    return {model: table.loc[tables["base"].index] for model, table in tables.items()}


def _by_model(judgements: Sequence[Judgement]) -> dict[str, pd.DataFrame]:
    frame = pd.DataFrame([_row(judgement) for judgement in judgements], columns=[*_COLUMNS])
    kinds = dict.fromkeys(_MEASURES, "float64") | dict.fromkeys(("named", "empty", "cut"), "bool")
    frame = frame.astype(kinds).set_index("id")
    # A judge has this measure for all it scores or for none; an empty answer has its 0 in any case.
    if frame.loc[frame["similarity"].notna(), "partial_similarity"].isna().any():
        frame["partial_similarity"] = math.nan
    frame["specific"] = frame["similarity"] - frame["other_references"]
    models = dict.fromkeys(chain(SYSTEMS, frame["model"]))
    return {model: frame[frame["model"] == model] for model in models}


def _row(judgement: Judgement) -> tuple[object, ...]:
    answer = judgement.answer
    second = judgement.second
    scores = (judgement.similarity, judgement.partial_similarity, judgement.other_references)
    return (
        *(answer.model, answer.id, answer.post or answer.id, bool(answer.post)),
        *(judgement.method, second.method if second else ""),
        *(*scores, second.similarity if second else None, _length_off(answer)),
        *(not answer.answer, answer.stop == "length"),
    )


def _length_off(answer: Answer) -> float | None:
    """An empty text has no length to compare."""
    if not answer.answer or not answer.reference:
        return None
    return abs(math.log(len(answer.answer) / len(answer.reference)))


def _check_match(model: str, table: pd.DataFrame, base: pd.DataFrame) -> None:
    where = "data/judgements"
    if table.empty:
        raise UserError(f"no judgements of {model}", where=where, remedy="run `dvc repro`")
    if table.index.has_duplicates or set(table.index) != set(base.index):
        raise UserError(
            f"{model} was judged on other questions than base",
            where=where,
            remedy="run `dvc repro`",
        )
    for column in ("method", "second_method"):
        methods = sorted({*base[column], *table[column]})
        if len(methods) > 1:
            told = " and ".join(method or "no second judge" for method in methods)
            raise UserError(
                f"judged in two ways, {told}",
                where=where,
                remedy="delete that folder, then run `dvc repro`",
            )
