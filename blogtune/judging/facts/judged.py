"""Puts what is found of the facts beside a judge's verdict."""

from blogtune.common.records import Judgement
from blogtune.judging.facts.find import find_facts
from blogtune.judging.facts.values import Vocabulary


def with_facts(judgement: Judgement, vocabulary: Vocabulary) -> Judgement:
    """The judgement with the reference's values looked for in the answer."""
    said = judgement.answer
    facts = find_facts(said.question, said.reference, said.answer, said.facts, vocabulary)
    return judgement.model_copy(update={"facts": facts})
