"""The embedding judge: how near do answer and reference lie?

Similarity is max(0, cosine) of the two embeddings. Partial similarity is the cosine
after the question's direction is projected out of both: what the answer shares with the reference
that the question did not already say. An echoed question leaves nothing, and scores 0.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from blogtune.judging.encoder import Encoder, Reading
from blogtune.judging.protocol import Item, Verdict

Vector = npt.NDArray[np.float64]
# A vector this short is rounding: the text says nothing but the question.
NOTHING = 1e-6


class EmbeddingJudge:
    """Judges with a sentence encoder; deterministic, and never without a score."""

    method = "cosine"

    def __init__(self, folder: Path) -> None:
        self.encoder = Encoder(folder)

    def reading(self, texts: Sequence[str]) -> Reading:
        """How much of the texts the encoder's vocabulary has pieces for."""
        return self.encoder.reading(texts)

    def judge(self, items: Sequence[Item]) -> Iterator[Verdict]:
        # Here and not with the first verdict: embedding is all that takes time.
        texts = sorted({text for i in items for text in (i.question, i.reference, i.answer)})
        embedded = self.encoder.embed(texts)
        vector = dict(zip(texts, embedded.vectors, strict=True))
        truncated = dict(zip(texts, embedded.truncated, strict=True))

        def verdict(item: Item) -> Verdict:
            answer, reference = vector[item.answer], vector[item.reference]
            return Verdict(
                similarity=similarity(answer, reference),
                partial_similarity=partial_similarity(answer, reference, vector[item.question]),
                truncated=bool(truncated[item.answer] or truncated[item.reference]),
            )

        return map(verdict, items)


def similarity(answer: Vector, reference: Vector) -> float:
    """max(0, cosine) of two unit vectors."""
    return float(np.clip(answer @ reference, 0.0, 1.0))


def partial_similarity(answer: Vector, reference: Vector, question: Vector) -> float:
    """Cosine in [-1, 1] of two unit vectors without their part along a third, `question`."""
    answer = answer - (answer @ question) * question
    reference = reference - (reference @ question) * question
    lengths = np.linalg.norm(answer), np.linalg.norm(reference)
    if min(lengths) < NOTHING:
        return 0.0
    return float(np.clip(answer @ reference / (lengths[0] * lengths[1]), -1.0, 1.0))
