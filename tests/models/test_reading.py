"""Texts read together give the logits that each gives alone."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from blogtune.models import reading
from blogtune.models.head import Integers, OutputLayer
from blogtune.models.reading import fitting, read_answers
from tests import tiny

SHARED = [9, 8, 7]
PROMPTS = [[*SHARED, 5], [*SHARED, 4, 6, 6, 2], [*SHARED, 11], [*SHARED, 5, 12, 13]]
ANSWERS = [[20, 21, 22], [], [23], [24] * 9]


@pytest.mark.parametrize("tokens", [1, 20, 1024])
@pytest.mark.parametrize(
    "prompts",
    [PROMPTS, PROMPTS[:1] * 4, [[8, 7, 5]] * 4, [[1], [2, 3], [3], [4]]],
    ids=["a shared beginning", "all the same", "all the same, shorter", "nothing in common"],
)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "apart"])
def test_each_text_has_its_own_logits(
    monkeypatch: pytest.MonkeyPatch, tokens: int, prompts: list[list[int]], tied: bool
) -> None:
    monkeypatch.setattr(reading, "TOKENS", tokens)
    network, simple = tiny.network(tied=tied), tiny.network(tied=tied)
    found = dict(read_answers(network, prompts, ANSWERS))
    assert sorted(found) == list(range(4))
    for place, (prompt, answer) in enumerate(zip(prompts, ANSWERS, strict=True)):
        expected = simple(mx.array([[*prompt, *answer]]))[0, len(prompt) - 1 :]
        np.testing.assert_allclose(found[place], expected, atol=1e-5)


def test_no_more_are_read_at_once_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    hidden = OutputLayer.hidden

    def watched(self: OutputLayer, inputs: Integers, rows: Integers, cache: Any) -> mx.array:
        shapes.append(inputs.shape)
        return hidden(self, inputs, rows, cache)

    monkeypatch.setattr(OutputLayer, "hidden", watched)
    for tokens, expected in ((12, [(3, 4), (1, 12)]), (11, [(2, 4), (1, 4), (1, 12)])):
        shapes.clear()
        monkeypatch.setattr(reading, "TOKENS", tokens)
        list(read_answers(tiny.network(), PROMPTS, ANSWERS))
        assert shapes == expected


@pytest.mark.parametrize(
    ("lengths", "tokens", "count"),
    [
        ([], 10, 0),
        ([50], 10, 1),
        ([3, 3, 3], 9, 3),
        ([3, 3, 3], 8, 2),
        ([2, 6, 3], 12, 2),
        ([2, 6, 3], 18, 3),
    ],
)
def test_as_many_fit_as_padded_have_so_many_tokens(
    lengths: list[int], tokens: int, count: int
) -> None:
    assert fitting(lengths, tokens) == count
