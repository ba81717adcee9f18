"""Exact duplicates, and between test and train near-duplicates and the same questions."""

from array import array
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from blogtune.common.progress import progress
from blogtune.common.records import NearDuplicate, Pair, read_records
from blogtune.data.keys import question_key
from blogtune.data.params import NearDuplicateParams
from blogtune.data.shingles import Shingles, Sketch, Sketcher, jaccard, shingles

NAMED_AT_MOST = 10
BATCH_CHARACTERS = 200_000
CACHED_TEST_PAIRS = 512

Keys = NDArray[np.uint64]


def first_of_each(*keys: Keys) -> NDArray[np.bool_]:
    """Return where a combination of keys stands for the first time, shape (pairs,)."""
    order = np.lexsort(keys)  # stable: equal keys stay in the input's order
    new = np.zeros(len(order), np.bool_)
    new[:1] = True
    for key in keys:
        new[1:] |= key[order[1:]] != key[order[:-1]]
    first = np.empty_like(new)
    first[order] = new
    return first


def near_duplicates(
    train: Path,
    test: Path,
    params: NearDuplicateParams,
    block_entries: int = 4_000_000,
) -> Iterator[NearDuplicate]:
    """Yield the test and train pairs whose similarity is at least `params.limit`.

    The similarity is the Jaccard similarity of the shingles of question and answer together.
    None is missed, but of each test pair the first NAMED_AT_MOST only are named: rows made from one
    template would otherwise give test times train of them. Both files hold `Pair`s; they are
    streamed, train once for each `block_entries` shingles looked up in test.
    """
    sketcher = Sketcher(params.shingle_words, params.limit)
    for batch in _batches(read_records(test, Pair)):
        sketcher.count([_text(pair) for pair in batch])
    with test.open("rb") as file:
        tests = _TestPairs(file, params)
        for index in _blocks(test, sketcher, block_entries):
            yield from _compare(train, sketcher, index, tests)
            del index  # before the next one is built


def same_questions(train: Path, test: Path, shingle_words: int) -> Iterator[NearDuplicate]:
    """Yield each test pair whose question is asked in train, with the first that asks it there."""
    wanted = {question_key(pair) for pair in read_records(test, Pair)}
    asked: dict[int, Pair] = {}
    for pair in read_records(train, Pair):
        if (key := question_key(pair)) in wanted:
            asked.setdefault(key, pair)
    for pair in read_records(test, Pair) if asked else ():
        if other := asked.get(question_key(pair)):
            one, two = (shingles(_text(each), shingle_words) for each in (pair, other))
            yield NearDuplicate(test=pair.id, train=other.id, similarity=jaccard(one, two))


def _compare(
    train: Path, sketcher: Sketcher, index: "_Index", tests: "_TestPairs"
) -> Iterator[NearDuplicate]:
    pairs = read_records(train, Pair)
    shown = progress(pairs, desc="compare", unit="pairs", scaled=True)
    for batch in _batches(shown):
        sketch = sketcher.sketch([_text(pair) for pair in batch])
        for text, candidates in index.candidates(sketch):
            yield from tests.near(batch[text], candidates)
        if tests.many_are_named():
            index.forget(tests.named)


class _TestPairs:
    """The test pairs, each read from the file when it is a candidate."""

    def __init__(self, file: IO[bytes], params: NearDuplicateParams) -> None:
        self._file = file
        self._params = params
        lengths = np.frombuffer(array("Q", (len(line) for line in file)), np.uint64)
        self._offsets = np.cumsum(lengths) - lengths
        self._times = np.zeros(len(lengths), np.uint8)
        self._named_lately = 0
        # Rows made from one template come up as candidates again and again.
        self._read = lru_cache(CACHED_TEST_PAIRS)(self._read_uncached)

    @property
    def named(self) -> NDArray[np.bool_]:
        """Which test pairs have been named often enough, shape (test pairs,)."""
        return self._times >= NAMED_AT_MOST

    def near(self, pair: Pair, candidates: Keys) -> Iterator[NearDuplicate]:
        """Compare a train pair with candidates exactly."""
        candidates = candidates[self._times[candidates] < NAMED_AT_MOST]
        own = shingles(_text(pair), self._params.shingle_words)
        for number in candidates.tolist():
            test, others = self._read(number)
            similarity = jaccard(own, others)
            if similarity >= self._params.limit:
                self._times[number] += 1
                self._named_lately += int(self._times[number] == NAMED_AT_MOST)
                yield NearDuplicate(test=test, train=pair.id, similarity=similarity)

    def many_are_named(self) -> bool:
        """Whether another tenth of the test pairs needs no more candidates since the last yes."""
        many = self._named_lately * 10 > len(self._times)
        self._named_lately = 0 if many else self._named_lately
        return many

    def _read_uncached(self, number: int) -> tuple[str, Shingles]:
        """The pair's id and its shingles."""
        self._file.seek(self._offsets[number])
        pair = Pair.model_validate_json(self._file.readline())
        return pair.id, shingles(_text(pair), self._params.shingle_words)


class _Index:
    """The entries of test pairs, sorted by shingle and then by how many shingles the pair has.

    It takes the lists' parts out of them: at its peak it needs 32 bytes an entry, then 16.
    """

    def __init__(self, keys: list[Keys], places: list[Keys]) -> None:
        self._keys = _joined(keys)
        order = np.argsort(self._keys)
        self._keys = self._keys[order]
        # The pair's number, and how many shingles another text may have to resemble it.
        self._places = _joined(places)
        self._places = self._places[order]

    def candidates(self, sketch: Sketch) -> Iterator[tuple[int, Keys]]:
        """Yield texts of the sketch by number, each with the test pairs it may resemble."""
        hits, start, stop = self._search(
            _packed(sketch.key, sketch.low), _packed(sketch.key, sketch.high)
        )
        texts, first = np.unique(sketch.text[hits], return_index=True)
        bounds = np.append(first, len(hits))
        for number, text in enumerate(texts.tolist()):
            entries = slice(bounds[number], bounds[number + 1])
            pair, high = _unpacked(self._places[_ranges(start[entries], stop[entries])])
            yield text, np.unique(pair[high >= sketch.size[hits[bounds[number]]]])

    def _search(
        self, low: Keys, high: Keys
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """Which of the ranges of keys hold entries, with the first entry and the one after it."""
        start = np.empty(len(low), np.intp)
        order = np.argsort(low)  # sorted keys are found three times as fast
        start[order] = np.searchsorted(self._keys, low[order])
        inside = start < len(self._keys)
        inside[inside] = self._keys[start[inside]] <= high[inside]
        hits = np.flatnonzero(inside)
        return hits, start[hits], np.searchsorted(self._keys, high[hits], "right")

    def forget(self, pairs: NDArray[np.bool_]) -> None:
        """Drop the entries of test pairs that need no more candidates."""
        kept = ~pairs[_unpacked(self._places)[0]]
        self._keys = self._keys[kept]
        self._places = self._places[kept]


def _blocks(test: Path, sketcher: Sketcher, block_entries: int) -> Iterator[_Index]:
    """Index the test pairs, so many at a time that memory does not grow with them."""
    keys: list[Keys] = []
    places: list[Keys] = []
    done = entries = 0
    for batch in _batches(read_records(test, Pair)):
        sketch = sketcher.sketch([_text(pair) for pair in batch])
        keys.append(_packed(sketch.key, sketch.size))
        places.append(_packed((sketch.text + done).astype(np.uint64), sketch.high))
        done += len(batch)
        entries += len(sketch.text)
        if entries >= block_entries:
            yield _Index(keys, places)
            entries = 0
    if keys:
        yield _Index(keys, places)


def _joined(parts: list[Keys]) -> Keys:
    """One array of all parts, which leave the list so that they do not stay in memory."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


def _ranges(start: NDArray[np.intp], stop: NDArray[np.intp]) -> NDArray[np.intp]:
    """The numbers from each start up to its stop, one range after the other."""
    sizes = stop - start
    return np.repeat(stop - np.cumsum(sizes), sizes) + np.arange(int(sizes.sum()))


def _packed(upper: Keys, lower: NDArray[np.int64]) -> Keys:
    return upper << np.uint64(32) | lower.astype(np.uint64)


def _unpacked(packed: Keys) -> tuple[Keys, Keys]:
    return packed >> np.uint64(32), packed & np.uint64(0xFFFFFFFF)


def _batches(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    """Lists of pairs with about BATCH_CHARACTERS in all, whatever the length of each."""
    batch: list[Pair] = []
    characters = 0
    for pair in pairs:
        batch.append(pair)
        characters += len(_text(pair))
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _text(pair: Pair) -> str:
    """What is compared: also the exchanges before, but no system text, which many pairs share."""
    earlier = (turn.content for turn in pair.context if turn.role != "system")
    return " ".join((*earlier, pair.question, pair.answer))
