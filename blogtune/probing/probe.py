"""Does each model find the reference likelier than wrong answers? The stage's work as a whole."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blogtune.common.errors import UserError
from blogtune.common.records import Pair
from blogtune.models.chat import open_chat
from blogtune.models.loading import LoadedModel
from blogtune.probing.choice import Item, items, knowledge, question
from blogtune.probing.distractors import Distractors
from blogtune.probing.likelihood import Question, Score, empty_prompt, score
from blogtune.probing.params import ProbeParams


@dataclass(frozen=True)
class Knowledge:
    """What `probe` found: metrics/knowledge.json, and a row for each question with distractors."""

    metrics: dict[str, Any]
    items: list[Item]


def probe(
    models: Mapping[str, Callable[[], LoadedModel]],
    pairs: Sequence[Pair],
    held_out: Sequence[Pair],
    everything: Sequence[Pair],
    params: ProbeParams,
) -> Knowledge:
    """Let each of the models choose among the candidates of each pair's question.

    `models` are loaded one after the other, so that memory holds one. `held_out` are the pairs
    whose answers may be distractors, `everything` those whose values may. Raises UserError where
    there is no question.
    """
    if not pairs:
        raise UserError("no questions to choose answers to", where="data/processed")
    found = Distractors(held_out, everything, params)
    distractors = [found.of(pair) for pair in pairs]
    chosen = [number for number, each in enumerate(distractors) if each]
    asked = [pairs[number] for number in chosen]
    wrong = [distractors[number] for number in chosen]
    questions = [question(*each) for each in zip(asked, wrong, strict=True)]
    scores: dict[str, list[list[Score | None]]] = {}
    made_of = ""
    for name, load in models.items():
        scores[name], made_of = _asked(load, questions, name)
    rows = items(asked, wrong, scores)
    return Knowledge({**knowledge(rows, len(pairs)), "empty_question": made_of}, rows)


def _asked(
    load: Callable[[], LoadedModel], questions: Sequence[Question], name: str
) -> tuple[list[list[Score | None]], str]:
    """One model's scores, and what it takes for an empty question; the model ends with this."""
    model = load()
    chat = open_chat(model.tokenizer)
    found = score(model.network, chat, questions, limit=model.context, desc=f"probe {name}")
    return found, empty_prompt(chat)[1]
