"""Drafts change no answer, whatever they say, and save what they were made to save."""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blogtune.answering import decode, generate
from blogtune.answering.params import AnswerParams
from blogtune.models import reading
from blogtune.models.loading import LoadedModel
from tests import tiny

QUESTIONS = [
    *tiny.facts(),
    *(tiny.pair(f"n{row}", f"Tell {'again ' * row}of {row}!", "-") for row in range(3)),
]
LONGEST = 14
TEXTS = st.one_of(
    st.sampled_from(sorted(tiny.FACTS.values())),
    st.builds(
        lambda text, end, more: text[:end] + more,
        st.sampled_from(sorted(tiny.FACTS.values())),
        st.integers(0, 30),
        st.sampled_from(["", ".", " of", "<|im_end|>", " When all of its steps are done." * 3]),
    ),
)


def answers(
    model: LoadedModel, drafts: Mapping[str, str] | None, max_tokens: int = LONGEST, batch: int = 4
) -> list[tuple[str, str, str, int]]:
    params = AnswerParams(split="test", max_tokens=max_tokens, batch_questions=batch)
    given = generate.answer_questions(model, "fused", QUESTIONS, params, tiny.ALONE, drafts)
    return [(each.id, each.answer, each.stop, each.tokens) for each in given]


@pytest.fixture(scope="module")
def without(taught: LoadedModel) -> dict[int, list[tuple[str, str, str, int]]]:
    return {limit: answers(taught, None, limit) for limit in range(1, LONGEST + 1)}


def own(found: list[tuple[str, str, str, int]]) -> dict[str, str]:
    return {name: answer for name, answer, *_ in found}


@settings(max_examples=60)
@given(
    drafts=st.dictionaries(st.sampled_from([pair.id for pair in QUESTIONS]), TEXTS),
    limit=st.integers(1, LONGEST),
    tokens=st.sampled_from([1, 60, 1024]),
)
def test_answers_are_those_without_drafts(
    taught: LoadedModel,
    without: dict[int, list[tuple[str, str, str, int]]],
    drafts: dict[str, str],
    limit: int,
    tokens: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "TOKENS", tokens)
        assert answers(taught, drafts, limit) == without[limit]


def counted(model: LoadedModel, drafts: Mapping[str, str], max_tokens: int, batch: int = 4) -> int:
    """How often the network was asked for one more token."""
    steps = 0
    step: Any = decode.Greedy.__call__

    def call(self: decode.Greedy, tokens: mx.array, cache: Any) -> mx.array:
        nonlocal steps
        steps += 1
        return step(self, tokens, cache)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode.Greedy, "__call__", call)
        answers(model, drafts, max_tokens, batch)
    return steps


def test_drafts_that_agree_leave_nothing_to_generate(
    taught: LoadedModel, without: dict[int, list[tuple[str, str, str, int]]]
) -> None:
    assert counted(taught, own(without[LONGEST]), LONGEST) == 0
    assert counted(taught, {}, LONGEST) > LONGEST


def test_an_answer_that_departs_is_generated_from_there(
    taught: LoadedModel, without: dict[int, list[tuple[str, str, str, int]]]
) -> None:
    drafts = own(without[LONGEST])
    name = QUESTIONS[3].id
    text = drafts[name]
    early = counted(taught, {**drafts, name: "Nothing."}, LONGEST)
    late = counted(taught, {**drafts, name: text[:20] + "!"}, LONGEST)
    assert early > late > 0


def test_the_network_is_left_as_it_was(taught: LoadedModel) -> None:
    tokens = mx.array([[5, 6, 7]])
    before = taught.network(tokens)
    answers(taught, {QUESTIONS[0].id: "Eight."})
    assert mx.array_equal(taught.network(tokens), before)
