"""Turns pairs into token sequences and those into batches by length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from blogtune.common.errors import UserError
from blogtune.common.records import Pair
from blogtune.models.chat import Chat
from blogtune.runtime.device import padded

# What a network computed of each token, (..., tokens, width).
States = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """One pair as tokens; `answer` ends with the end token unless it was cut."""

    id: str
    prompt: list[int]
    answer: list[int]

    @property
    def tokens(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class Batch:
    """Examples padded to one length.

    inputs: (examples, length) token numbers; rows: (answer tokens,) the positions in the flattened
    inputs that predict an answer token; targets: (answer tokens,) those tokens.
    """

    examples: tuple[Example, ...]
    inputs: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]

    def arranged(self, states: Sequence[States]) -> States:
        """Each example's states, (tokens, width), as the inputs lie, padded with 0."""
        out = np.zeros((*self.inputs.shape, states[0].shape[-1]), np.float32)
        for row, each in enumerate(states):
            out[row, : len(each)] = each
        return out

    def share(self, rank: int, processes: int) -> "Batch | None":
        """Every `processes`-th example from the `rank`-th; None where none is left."""
        if processes == 1:
            return self
        mine = self.examples[rank::processes]
        return make_batch(mine) if mine else None


def make_examples(
    pairs: Sequence[Pair], chat: Chat, max_tokens: int, context: int | None = None
) -> tuple[list[Example], int]:
    """Tokenize; return the examples and how many answers were cut at `max_tokens`.

    Raises UserError for a question so long that no answer token would be left, and for a pair that
    is longer than the model's `context`.
    """
    examples = [_make_example(pair, chat, max_tokens) for pair in pairs]
    for example in examples:
        if context is not None and example.tokens > context:
            raise UserError(
                f"{example.tokens:,} tokens, but the model reads {context:,}",
                where=f"pair {example.id}",
                remedy=f"set train.max_sequence_tokens to {context} or less, or cut the question",
            )
    cut = sum(1 for example in examples if example.answer[-1] != chat.end)
    return examples, cut


def make_batch(examples: Sequence[Example]) -> Batch:
    """Pad the examples at their ends; only answer tokens are predicted."""
    length = padded(max(example.tokens for example in examples) - 1)
    inputs = np.zeros((len(examples), length), np.int32)
    rows: list[int] = []
    targets: list[int] = []
    for index, example in enumerate(examples):
        tokens = [*example.prompt, *example.answer]
        inputs[index, : len(tokens) - 1] = tokens[:-1]
        first = index * length + len(example.prompt) - 1
        rows.extend(range(first, first + len(example.answer)))
        targets.extend(example.answer)
    return Batch(tuple(examples), inputs, np.array(rows, np.int32), np.array(targets, np.int32))


def epochs(examples: Sequence[Example], size: int, seed: int, behind: int = 0) -> Iterator[Batch]:
    """Batches without end: every example once an epoch, neighbours in length together.

    The first `behind` of them are passed over.
    """
    for places in islice(_orders(examples, size, seed), behind, None):
        yield make_batch([examples[place] for place in places])


def padding_share(examples: Sequence[Example], size: int) -> float:
    """The share of an epoch's positions that only fill up its batches, where they are not packed.

    Raises UserError when there are fewer examples than a batch holds.
    """
    if len(examples) < size:
        raise UserError(
            f"{size}, but there are {len(examples)} training pairs", where="train.batch_pairs"
        )
    lengths = sorted(example.tokens - 1 for example in examples)
    batches = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    return 1 - sum(lengths) / sum(len(batch) * padded(batch[-1]) for batch in batches)


def _orders(examples: Sequence[Example], size: int, seed: int) -> Iterator[list[int]]:
    """The places of each batch's examples, without end."""
    random = np.random.default_rng(seed)
    while True:
        # A random order before the stable sort mixes examples of one length from epoch to epoch.
        tokens = np.array([example.tokens for example in examples])
        shuffled = random.permutation(len(examples))
        order = shuffled[np.argsort(tokens[shuffled], kind="stable")]
        starts = random.permutation(np.arange(0, len(order), size))
        for start in starts:
            yield order[start : start + size].tolist()


def batches_by_length(examples: Sequence[Example], size: int) -> Iterator[Batch]:
    """One pass over all examples, shortest first."""
    ordered = sorted(examples, key=lambda example: example.tokens)
    for start in range(0, len(ordered), size):
        yield make_batch(ordered[start : start + size])


def _make_example(pair: Pair, chat: Chat, max_tokens: int) -> Example:
    prompt = chat.prompt(pair.question, pair.context)
    if len(prompt) >= max_tokens:
        what, remedy = "", "raise it or cut the question"
        if pair.context:
            what, remedy = " with what was said before it", "raise it or lower data.context_turns"
        raise UserError(
            f"its question{what} alone has {len(prompt)} tokens, which leaves none of "
            f"train.max_sequence_tokens ({max_tokens}) for the answer",
            where=f"pair {pair.id}",
            remedy=remedy,
        )
    return Example(pair.id, prompt, chat.answer(pair.answer)[: max_tokens - len(prompt)])
