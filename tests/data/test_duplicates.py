from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blogtune.common.records import NearDuplicate, Pair, write_records
from blogtune.data import duplicates
from blogtune.data.duplicates import NAMED_AT_MOST, _blocks, first_of_each, near_duplicates
from blogtune.data.params import NearDuplicateParams
from blogtune.data.shingles import Sketcher, jaccard, shingles

Texts = list[str]
WORDS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=10).map(" ".join)
KEYS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)))


@pytest.fixture(scope="module")
def find(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[NearDuplicate]]:
    """Runs `near_duplicates` over texts, the question of each being its first word.

    A block ends with a batch at the earliest, so that small ones need small batches.
    """
    folder = tmp_path_factory.mktemp("near")

    def run(
        train: Texts,
        test: Texts,
        words: int,
        limit: float,
        block_entries: int = 10**6,
        batch_characters: int = duplicates.BATCH_CHARACTERS,
    ) -> list[NearDuplicate]:
        for name, texts in (("train", train), ("test", test)):
            write_records(folder / name, (pair(name, *item) for item in enumerate(texts)))
        params = NearDuplicateParams(method="jaccard", shingle_words=words, limit=limit)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(duplicates, "BATCH_CHARACTERS", batch_characters)
            found = near_duplicates(folder / "train", folder / "test", params, block_entries)
            return list(found)

    return run


def pair(name: str, number: int, text: str) -> Pair:
    question, _, answer = text.partition(" ")
    return Pair(id=f"{name} {number}", post=None, question=question, answer=answer)


def by_comparing_all(train: Texts, test: Texts, words: int, limit: float) -> set[NearDuplicate]:
    return {
        NearDuplicate(test=f"test {j}", train=f"train {i}", similarity=similarity)
        for i, one in enumerate(train)
        for j, other in enumerate(test)
        if (similarity := jaccard(shingles(one, words), shingles(other, words))) >= limit
    }


@settings(deadline=None)
@given(
    st.lists(WORDS, min_size=1, max_size=NAMED_AT_MOST),
    st.lists(WORDS, min_size=1, max_size=8),
    st.integers(1, 3),
    st.sampled_from([0.2, 0.5, 0.55, 0.7, 0.8, 1.0]),
    st.sampled_from([1, 8, 10**6]),
    st.sampled_from([1, 30, 10**6]),
)
def test_the_near_duplicates_are_those_that_comparing_all_pairs_finds(
    find: Callable[..., list[NearDuplicate]],
    train: Texts,
    test: Texts,
    words: int,
    limit: float,
    block_entries: int,
    batch_characters: int,
) -> None:
    found = find(train, test, words, limit, block_entries, batch_characters)
    assert len(found) == len(set(found))
    assert set(found) == by_comparing_all(train, test, words, limit)


def test_long_texts_with_a_word_changed_here_and_there_are_found(
    find: Callable[..., list[NearDuplicate]],
) -> None:
    draw = np.random.default_rng(7)
    train = [" ".join(map(str, draw.integers(0, 300, 80))) for _ in range(300)]
    test = [
        " ".join(word if draw.random() > 0.06 else "changed" for word in text.split())
        for text in train[:100]
    ]
    found = set(find(train, test, 3, 0.7))
    assert found == by_comparing_all(train, test, 3, 0.7)
    assert 20 < len(found) < 100


@pytest.mark.parametrize("limit", [0.5, 0.8])
def test_of_rows_made_from_one_template_only_the_first_few_are_named(
    find: Callable[..., list[NearDuplicate]], limit: float
) -> None:
    template = " ".join(f"word{number}" for number in range(40))
    train = [f"What is number {number} of {template}" for number in range(3_000)]
    test = [f"What is number {number} of {template}" for number in range(3_000, 3_100)]
    found = find(train, test, 3, limit)
    assert {near.train for near in found} == {f"train {n}" for n in range(NAMED_AT_MOST)}
    assert len(found) == len(test) * NAMED_AT_MOST


@pytest.mark.parametrize("block_entries", [1, 8, 10**6])
def test_many_blocks_find_what_one_finds(
    find: Callable[..., list[NearDuplicate]], block_entries: int
) -> None:
    draw = np.random.default_rng(7)
    train, test = (
        [" ".join(draw.choice(list("abcdef"), 6)) for _ in range(count)] for count in (9, 40)
    )
    found = set(find(train, test, 1, 0.5, block_entries, batch_characters=30))
    assert found == by_comparing_all(train, test, 1, 0.5) != set()


def test_a_block_ends_with_the_batch_that_fills_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "BATCH_CHARACTERS", 1)
    write_records(tmp_path / "test", (pair("test", row, "a b c d") for row in range(10)))
    blocks = [len(list(_blocks(tmp_path / "test", Sketcher(1, 0.5), size))) for size in (1, 10**6)]
    assert blocks == [10, 1]


def test_what_is_named_often_enough_makes_room_for_what_is_not(
    find: Callable[..., list[NearDuplicate]],
) -> None:
    often, once = "word of a template", "quite another text"
    train = [*[often] * (NAMED_AT_MOST + 1), once]
    found = find(train, [often, once], 1, 1.0, batch_characters=1)
    assert [near.test for near in found] == ["test 0"] * NAMED_AT_MOST + ["test 1"]


@pytest.mark.parametrize("turned", [False, True])
def test_a_similarity_at_the_limit_survives_the_rounding(
    find: Callable[..., list[NearDuplicate]], turned: bool
) -> None:
    words = [f"w{number}" for number in range(25)]
    texts = [[" ".join(words)], [" ".join(words[:14])]]
    train, test = reversed(texts) if turned else texts
    assert 0.56 * 25 > 14  # which is not so
    assert len(find(train, test, 1, 0.56)) == 1


@settings(deadline=None)
@given(KEYS)
def test_the_first_of_each_is_the_one_that_stands_first(rows: list[tuple[int, int]]) -> None:
    expected = [rows.index(row) == number for number, row in enumerate(rows)]
    keys = np.array(rows, np.uint64).reshape(-1, 2)
    assert first_of_each(keys[:, 0], keys[:, 1]).tolist() == expected
