"""The questions whose answers changed most, as they are kept for `make show`.

{"kind": "best", "id": "5f0c3a9b2d417e68", "question": "...", "reference": "...", "base": "...",
 "finetuned": "...", "base_similarity": 0.31, "finetuned_similarity": 0.74}
"""

from collections.abc import Sequence
from typing import Literal

from blogtune.common.records import Judgement, Record, Score

Kind = Literal["best", "worst"]


class Change(Record):
    """A question whose similarity changed much from base to fine-tuned, with both answers."""

    kind: Kind
    id: str
    question: str
    reference: str
    base: str
    finetuned: str
    base_similarity: Score
    finetuned_similarity: Score

    @property
    def change(self) -> float:
        """Fine-tuned minus base similarity."""
        return self.finetuned_similarity - self.base_similarity


def biggest_changes(judgements: Sequence[Judgement], count: int) -> list[Change]:
    """Return the `count` best changes, best first, then the `count` worst of the rest, worst first.

    Of all models' judgements it takes those of base and finetuned that have a score.
    """
    changes = _changes(judgements)
    best, rest = changes[:count], changes[count:]
    worst: Kind = "worst"
    return best + [change.model_copy(update={"kind": worst}) for change in rest[::-1][:count]]


def _changes(judgements: Sequence[Judgement]) -> list[Change]:
    """All changes from the best to the worst; equal ones by id."""
    after = {row.answer.id: row for row in judgements if row.answer.model == "finetuned"}
    changes = [
        Change(
            kind="best",
            id=row.answer.id,
            question=row.answer.question,
            reference=row.answer.reference,
            base=row.answer.answer,
            finetuned=after[row.answer.id].answer.answer,
            base_similarity=row.similarity,
            finetuned_similarity=similarity,
        )
        for row in judgements
        if row.answer.model == "base" and row.similarity is not None
        if (similarity := after[row.answer.id].similarity) is not None
    ]
    return sorted(changes, key=lambda change: (-change.change, change.id))
