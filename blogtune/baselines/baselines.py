"""Answers that no fine-tuning gave, judged like a model's: what is a model's score worth?

- `echo`: the question itself. What it gets, an answer can get without knowing anything.
- `base_cut`: the base model's answer, cut to the fine-tuned model's length. Is brevity the gain?
- `random_training_answer`: the manner of the training answers without their content.
- `nearest_training_answer`: what a search over one's own data gives.

The nearest training pair is found by the words of its question and its answer, without a model, so
it is the same whoever judges. By the words of its question alone it was much weaker.
"""

import hashlib
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from blogtune.common.errors import UserError
from blogtune.common.records import Answer, Pair
from blogtune.common.texts import sentence_ends, words


def baselines(
    train: Sequence[Pair], base: Sequence[Answer], finetuned: Sequence[Answer], seed: int
) -> Iterator[Answer]:
    """Yield the four baselines' answers to each question that `base` answered, in that order.

    Raises UserError where there are no training pairs or no answers.
    """
    if not train or not base or not finetuned:
        part = "questions" if train else "training pairs"
        raise UserError(f"no {part}", where="baselines", remedy="check data.path and data.split")
    limit = statistics.median(len(each.answer) for each in finetuned)
    nearest = Nearest([f"{pair.question} {pair.answer}" for pair in train])
    for asked in base:
        yield _answer(asked, "echo", asked.question)
        yield _answer(asked, "base_cut", cut(asked.answer, limit))
        yield _answer(asked, "random_training_answer", _random(asked.id, train, seed).answer)
        found = train[nearest.find(asked.question)]
        yield _answer(asked, "nearest_training_answer", found.answer)


def cut(text: str, limit: float) -> str:
    """Return the text up to its last sentence that ends within `limit` characters, or its first."""
    whole = text.strip()
    parts = [part for part in (whole[:end].rstrip() for end in sentence_ends(whole)) if part]
    fitting = [part for part in parts if len(part) <= limit]
    return (fitting[-1:] or parts[:1] or [""])[0]


class Nearest:
    """Finds the text nearest to a question by TF-IDF cosine over its words.

    A word counts (times in the text) x (ln((1 + texts) / (1 + texts with it)) + 1); Salton and
    Buckley 1988, "Term-weighting approaches in automatic text retrieval".
    """

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(words(text)) for text in texts]
        documents = Counter(word for count in counts for word in count)
        self._size = len(texts)
        self._rarity = {
            word: math.log((1 + self._size) / (1 + times)) + 1.0
            for word, times in documents.items()
        }
        self._postings = self._index(counts)

    def find(self, question: str) -> int:
        """Return the index of the nearest text: the first where several are as near, or none is."""
        # The question's own length divides all cosines alike, so it is left out.
        cosine = np.zeros(self._size)
        for word, times in Counter(words(question)).items():
            if word in self._postings:
                rows, weights = self._postings[word]
                cosine[rows] += times * self._rarity[word] * weights
        return int(np.argmax(cosine))

    def _index(
        self, counts: Sequence[Counter[str]]
    ) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """For each word the texts that have it, and its weights in them, scaled to length 1."""
        entries: dict[str, list[tuple[int, float]]] = {}
        for row, count in enumerate(counts):
            weights = {word: times * self._rarity[word] for word, times in count.items()}
            # Exact: the order of the words must not break a tie.
            length = math.sqrt(math.fsum(weight**2 for weight in weights.values()))
            for word, weight in weights.items():
                entries.setdefault(word, []).append((row, weight / length))
        return {
            word: (np.array([row for row, _ in pairs]), np.array([weight for _, weight in pairs]))
            for word, pairs in entries.items()
        }


def _random(question: str, train: Sequence[Pair], seed: int) -> Pair:
    """A training pair chosen by the seed and the question's id alone."""
    digest = hashlib.blake2b(f"{seed}:{question}".encode(), digest_size=8).digest()
    return train[int.from_bytes(digest) % len(train)]


def _answer(asked: Answer, model: str, text: str) -> Answer:
    return asked.model_copy(update={"model": model, "answer": text, "stop": "none", "tokens": 0})
