from itertools import islice
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blogtune.common.errors import UserError
from blogtune.common.records import Message
from blogtune.models.chat import Chat, open_chat
from blogtune.models.loading import load_model
from blogtune.training.examples import (
    Example,
    batches_by_length,
    epochs,
    make_batch,
    make_examples,
    padding_share,
)
from tests import tiny


@pytest.fixture(scope="module")
def chat(tiny_folder: Path) -> Chat:
    return open_chat(load_model(tiny_folder, mx.float32).tokenizer)


def made(lengths: list[tuple[int, int]]) -> list[Example]:
    """Examples of these (prompt, answer) lengths, every token another number."""
    numbers = iter(range(1, 10_000))
    return [
        Example(f"e{row}", list(islice(numbers, prompt)), list(islice(numbers, answer)))
        for row, (prompt, answer) in enumerate(lengths)
    ]


LENGTHS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=30)


def test_an_example_is_the_prompt_and_the_answer_with_its_end(chat: Chat) -> None:
    (example,), cut = make_examples([tiny.pair("a", "Why?", "Because.")], chat, 100)
    assert cut == 0
    assert (example.id, example.prompt) == ("a", chat.prompt("Why?"))
    assert example.answer == chat.answer("Because.")
    assert example.tokens == len(example.prompt) + len(example.answer)


def test_what_was_said_before_stands_in_the_prompt_and_is_no_target(chat: Chat) -> None:
    turns = [
        Message(role="system", content="Be brief."),
        *tiny.pair("b", "When?", "Then.").messages,
    ]
    pair = tiny.pair("a", "Why?", "Because.").model_copy(update={"context": tuple(turns)})
    (example,), _ = make_examples([pair], chat, 200)
    asked = [turn.model_dump() for turn in pair.messages[:-1]]
    assert example.prompt == chat.opening(asked)
    assert [turn["content"] for turn in asked] == ["Be brief.", "When?", "Then.", "Why?"]
    assert example.answer == chat.answer("Because.")
    with pytest.raises(UserError, match=r"said before it alone has .*lower data\.context_turns"):
        make_examples([pair], chat, len(example.prompt))


def test_only_answer_tokens_are_targets_and_the_end_is_among_them(chat: Chat) -> None:
    examples, _ = make_examples(tiny.facts(), chat, 100)
    batch = make_batch(examples)
    answers = [token for example in examples for token in example.answer]
    assert batch.targets.tolist() == answers
    assert batch.targets.tolist().count(chat.end) == len(examples)


@given(LENGTHS)
def test_a_row_holds_what_comes_before_its_target(lengths: list[tuple[int, int]]) -> None:
    examples = made(lengths)
    batch = make_batch(examples)
    # Each token is the number after the one before it, so the target tells what its row must hold.
    assert (batch.inputs.reshape(-1)[batch.rows] == batch.targets - 1).all()
    assert len(batch.targets) == sum(len(example.answer) for example in examples)
    assert batch.inputs.shape == (len(examples), max(e.tokens for e in examples) - 1)


def test_padding_stands_at_the_end() -> None:
    batch = make_batch(made([(2, 1), (2, 3)]))
    assert batch.inputs.tolist() == [[1, 2, 0, 0], [4, 5, 6, 7]]
    assert batch.rows.tolist() == [1, 5, 6, 7]
    assert batch.targets.tolist() == [3, 6, 7, 8]


@pytest.mark.parametrize(
    ("room", "kept", "cuts"),
    [
        pytest.param(0, None, 0, id="as long as it is"),
        pytest.param(1, -1, 1, id="without its end token"),
        pytest.param(3, -3, 1, id="three tokens short"),
    ],
)
def test_a_long_answer_is_cut_at_its_end_and_counted(
    chat: Chat, room: int, kept: int | None, cuts: int
) -> None:
    pairs = [tiny.pair("a", "Why?", "Because the rank is eight."), tiny.pair("b", "W?", "B.")]
    whole = make_examples(pairs, chat, 1000)[0][0]
    (example, short), cut = make_examples(pairs, chat, whole.tokens - room)
    assert example.answer == whole.answer[:kept]
    assert short.answer[-1] == chat.end
    assert cut == cuts


def test_one_answer_token_is_the_least_that_is_kept(chat: Chat) -> None:
    pair = tiny.pair("a", "Why?", "Because.")
    limit = len(chat.prompt("Why?")) + 1
    (example,), cut = make_examples([pair], chat, limit)
    assert (example.answer, cut) == (chat.answer("Because.")[:1], 1)


@pytest.mark.parametrize("room", [0, -5], ids=["fills the limit", "exceeds it"])
def test_a_question_without_room_for_an_answer_names_its_pair(chat: Chat, room: int) -> None:
    tokens = len(chat.prompt("Why?"))
    with pytest.raises(UserError) as caught:
        make_examples([tiny.pair("5f0c", "Why?", "Because.")], chat, tokens + room)
    assert str(caught.value) == (
        f"pair 5f0c: its question alone has {tokens} tokens, which leaves none of "
        f"train.max_sequence_tokens ({tokens + room}) for the answer; "
        "raise it or cut the question"
    )


@given(lengths=LENGTHS, size=st.integers(1, 30), seed=st.integers(0, 9), rounds=st.integers(1, 3))
def test_every_example_comes_exactly_once_an_epoch(
    lengths: list[tuple[int, int]], size: int, seed: int, rounds: int
) -> None:
    examples = made(lengths)
    size = min(size, len(examples))
    batches = epochs(examples, size, seed)
    for _ in range(rounds):
        # The last batch may be smaller; it is not lost.
        epoch = list(islice(batches, -(-len(examples) // size)))
        seen = [example.id for batch in epoch for example in batch.examples]
        assert sorted(seen) == sorted(example.id for example in examples)
        assert sorted(len(b.examples) for b in epoch)[1:] == [size] * (len(epoch) - 1)


def order(seed: int, count: int = 40) -> list[list[str]]:
    examples = made([(1 + row % 5, 1 + row % 7) for row in range(30)])
    return [[e.id for e in batch.examples] for batch in islice(epochs(examples, 4, seed), count)]


def test_one_seed_gives_one_order_and_another_seed_another() -> None:
    assert order(seed=7) == order(seed=7)
    assert order(seed=7) != order(seed=8)
    assert order(seed=7)[:8] != order(seed=7)[8:16]


def test_batches_come_in_another_order_each_epoch() -> None:
    # All lengths are other ones, so a batch is known by its shortest example.
    batches = epochs(made([(1, 1 + number) for number in range(40)]), 4, seed=7)
    firsts = [batch.examples[0].tokens for batch in islice(batches, 20)]
    assert firsts[:10] != sorted(firsts[:10])
    assert firsts[:10] != firsts[10:]


def test_equal_lengths_are_mixed_anew_each_epoch() -> None:
    batches = islice(epochs(made([(2, 3)] * 40), 4, seed=7), 20)
    together = [{example.id for example in batch.examples} for batch in batches]
    assert not any(batch in together[:10] for batch in together[10:])


def test_a_batch_holds_neighbours_in_length() -> None:
    examples = made([(1, 1 + row) for row in np.random.default_rng(0).permutation(20)])
    for batch in islice(epochs(examples, 5, seed=3), 4):
        lengths = [example.tokens for example in batch.examples]
        assert max(lengths) - min(lengths) == 4


def test_fewer_examples_than_a_batch_holds_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        padding_share(made([(1, 1)] * 3), 4)
    assert str(caught.value) == "train.batch_pairs: 4, but there are 3 training pairs"


def test_the_share_of_padding_is_that_of_an_epochs_batches() -> None:
    examples = made([(1, 2), (2, 1), (3, 2), (1, 2), (2, 5)])
    seen = list(islice(epochs(examples, 2, seed=0), 3))
    positions = sum(batch.inputs.size for batch in seen)
    read = sum(example.tokens - 1 for example in examples)
    assert padding_share(examples, 2) == pytest.approx(1 - read / positions)
    assert padding_share(examples, 1) == 0


@pytest.mark.parametrize("behind", [1, 7, 20])
def test_batches_go_on_where_they_were_left(behind: int) -> None:
    examples = made([(1 + row % 5, 1 + row % 7) for row in range(30)])
    whole = [batch.examples for batch in islice(epochs(examples, 4, 7), 30)]
    rest = [batch.examples for batch in islice(epochs(examples, 4, 7, behind), 30 - behind)]
    assert rest == whole[behind:]


@given(lengths=LENGTHS, size=st.integers(1, 9))
def test_one_pass_by_length_sees_each_once(lengths: list[tuple[int, int]], size: int) -> None:
    examples = made(lengths)
    seen = [e for batch in batches_by_length(examples, size) for e in batch.examples]
    assert [e.tokens for e in seen] == sorted(e.tokens for e in examples)
    assert {e.id for e in seen} == {e.id for e in examples}
