"""From the source to three splits, in two passes over it and with a few numbers for each pair.

The first pass checks every row and keeps two 64-bit keys for each pair; splits and exact
duplicates are decided from these. The second writes the pairs. So memory grows by less than 200
bytes a row, however long the texts are.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from blogtune.common.errors import UserError
from blogtune.common.files import atomic_text
from blogtune.common.pipeline import check_not_written
from blogtune.common.progress import progress, say
from blogtune.common.records import NearDuplicate, Pair, write_records
from blogtune.data.columns import Columns, completed
from blogtune.data.duplicates import first_of_each, near_duplicates, same_questions
from blogtune.data.files import data_files, own_split
from blogtune.data.keys import content_key, post_key
from blogtune.data.pairs import pairs_of
from blogtune.data.params import FETCHED, DataParams, SplitParams
from blogtune.data.sources import Row, read_rows
from blogtune.data.split import FILES, NAMES, TRAIN, Keys, Splits, assign
from blogtune.data.values import REASONS, BadRowError

DROPPED = len(NAMES)
SHOWN_BEYOND_ALLOWED = 20


def prepare(params: DataParams, output: Path) -> dict[str, Any]:
    """Write train, valid, test and near_duplicates.jsonl to `output`; return the metrics.

    Each file is written whole or not at all, its pairs in the input's order. Bad rows are told on
    stderr. Raises UserError when they exceed `data.max_bad_rows`, and for data that cannot be
    read, give no pairs, leave a split empty or change meanwhile.
    """
    fetched = [Path(FETCHED)] if params.fetch.source else []
    check_not_written(Path(params.path), "data.path", but=fetched)
    source = _open_source(params)
    bad = _BadRows(params.max_bad_rows)
    keys = _read_keys(source, bad)
    bad.check()
    _say_what_is_left_out(source, keys)
    splits = _allocate(keys, params.split)
    counts = _counts(splits, source.path)
    words = _write_splits(source, keys, splits, output)
    kept = splits != DROPPED
    return {
        "rows": bad.rows,
        "pairs": int(kept.sum()),
        "posts": len(np.unique(keys.posts[kept])),
        "without_post": int((keys.posts == keys.contents)[kept].sum()),
        **counts,
        "context_cut": keys.cut,
        "dropped": {"exact_duplicates": int((~kept).sum()), "bad_rows": bad.by_reason()},
        **_write_near_duplicates(output, params),
        **words,
    }


class _Source(NamedTuple):
    """Where the pairs are, what their columns are called, and what their keys are seeded with.

    `context_turns` are the earlier exchanges that a pair keeps, `parts` the files' own parts.
    """

    path: Path
    columns: Columns
    seed: int
    context_turns: int = 0
    parts: Mapping[Path, int] = {}


def _open_source(params: DataParams) -> _Source:
    path = Path(params.path)
    parts = own_split(data_files(path))
    if parts:
        names = ", ".join(str(file.relative_to(path)) for file in parts)
        lacking = [name for part, name in enumerate(NAMES) if part not in parts.values()]
        rest = f", and {' and '.join(lacking)} taken from train" if lacking else ""
        say(f"{path}: its own split is kept ({names}){rest}")
    columns = completed(params.columns)
    return _Source(path, columns, params.split.seed, params.context_turns, parts)


class _BadRows:
    """Tells of each bad row on stderr and counts it, as far as `allowed` and a little beyond."""

    def __init__(self, allowed: int) -> None:
        self.rows = 0
        self._allowed = allowed
        self._counts: Counter[str] = Counter()
        self._first = ""

    def add(self, row: Row, problem: BadRowError) -> None:
        line = f"{row.where}: {problem}"
        self._first = self._first or line
        self._counts[problem.reason] += 1
        # A wrong schema makes a million of them; the first few tell it all.
        if self._counts.total() <= self._allowed + SHOWN_BEYOND_ALLOWED:
            say(line)

    def check(self) -> None:
        """Raise UserError where there are more than allowed."""
        count = self._counts.total()
        if count > self._allowed:
            rows = "1 bad row" if count == 1 else f"{count} bad rows"
            raise UserError(
                f"{self._first} ({rows}, data.max_bad_rows is {self._allowed})",
                remedy="mend the data or raise data.max_bad_rows",
            )

    def by_reason(self) -> dict[str, int]:
        """Every reason with its count, zeros too, so that the metrics' names stay the same."""
        return {reason: self._counts[reason] for reason in REASONS}


class _PairKeys(NamedTuple):
    """Each pair's content key and post key, shape (pairs,) each; without a post they are equal.

    Pairs of one `unit` belong into one part: those that stand in each other's context. `parts` are
    those of the files' own split, else TRAIN. `cut` counts pairs that lack earlier exchanges.
    """

    contents: Keys
    posts: Keys
    units: Keys
    parts: Splits
    cut: int = 0


def _read_keys(source: _Source, bad: _BadRows) -> _PairKeys:
    """The first pass: check and count every row, keep the keys."""
    contents, posts, units = array("Q"), array("Q"), array("Q")
    parts, cut = array("B"), 0
    for row in _progress(read_rows(source.path, source.columns), "read"):
        bad.rows += 1
        try:
            pairs = pairs_of(row.content, source.columns, source.context_turns)
        except BadRowError as problem:
            bad.add(row, problem)
            continue
        cut += max(0, len(pairs) - 1 - source.context_turns)
        first, _ = _keys_of(pairs[0], source.seed)
        for pair in pairs:
            content, post = _keys_of(pair, source.seed)
            contents.append(content)
            posts.append(post)
            units.append(first if source.context_turns else content)
            parts.append(source.parts.get(row.file, TRAIN))
    return _PairKeys(
        contents=np.frombuffer(contents, np.uint64),
        posts=np.frombuffer(posts, np.uint64),
        units=np.frombuffer(units, np.uint64),
        parts=np.frombuffer(parts, np.uint8),
        cut=cut,
    )


def _keys_of(pair: Pair, seed: int) -> tuple[int, int]:
    """A pair without a post is its own post."""
    content = content_key(pair, seed)
    return content, content if pair.post is None else post_key(pair.post, seed)


def _say_what_is_left_out(source: _Source, keys: _PairKeys) -> None:
    if keys.cut:
        say(
            f"{source.path}: {keys.cut} of {len(keys.contents)} questions stand without earlier "
            f"turns of their conversation (data.context_turns is {source.context_turns})"
        )


def _allocate(keys: _PairKeys, params: SplitParams) -> Splits:
    """Each pair's split, or DROPPED for an exact duplicate of an earlier pair, shape (pairs,).

    What a pair shares with another post is dropped after the split: before it, a new post with a
    known pair would shift the others of the old post.
    """
    both = np.stack([keys.posts, keys.units])
    (posts, units), inverse = np.unique(both, axis=1, return_inverse=True)
    splits = assign(posts, units, _shares(keys, params))[inverse]
    splits = np.where(keys.parts == TRAIN, splits, keys.parts)
    splits[~first_of_each(keys.contents)] = DROPPED
    return splits


def _shares(keys: _PairKeys, params: SplitParams) -> SplitParams:
    """How what no file has put elsewhere is divided: among train and the parts without a file."""
    there = set(np.unique(keys.parts).tolist()) - {TRAIN}
    if not there:
        return params
    shares = [0.0 if part in there else getattr(params, name) for part, name in enumerate(NAMES)]
    scaled = {name: share / sum(shares) for name, share in zip(NAMES, shares, strict=True)}
    return params.model_copy(update=scaled)


def _counts(splits: Splits, source: Path) -> dict[str, int]:
    """How many pairs each split holds; raise UserError where one holds none."""
    sizes = np.bincount(splits, minlength=DROPPED)[:DROPPED].tolist()
    counts: dict[str, int] = dict(zip(NAMES, sizes, strict=True))
    if sum(sizes) == 0:
        raise UserError(
            "no question/answer pair in it", where=source, remedy="see the bad rows above"
        )
    for name, count in counts.items():
        if count == 0:
            raise UserError(
                f"no {name} pair, there are only {sum(sizes)} pairs in {source}",
                where="data.split",
                remedy="add data or change the shares",
            )
    return counts


def _write_splits(
    source: _Source, keys: _PairKeys, splits: Splits, output: Path
) -> dict[str, float]:
    """The second pass; return the mean lengths, in words, of the pairs that were kept."""
    words, duplicates = Counter[str](), 0
    with ExitStack() as stack:
        files = [stack.enter_context(atomic_text(output / name)) for name in FILES]
        for row, pair, split in _with_split(source, keys, splits):
            if split != DROPPED:
                files[split].write(pair.model_dump_json() + "\n")
                words.update(question=len(pair.question.split()), answer=len(pair.answer.split()))
                continue
            duplicates += 1
            if duplicates == 1:
                say(f"{row.where}: the same question and answer as an earlier pair; dropped")
    if duplicates > 1:
        say(f"{source.path}: {duplicates} exact duplicates dropped, that one included")
    kept = len(splits) - duplicates
    return {f"{name}_words": round(words[name] / kept, 2) for name in ("question", "answer")}


def _with_split(
    source: _Source, keys: _PairKeys, splits: Splits
) -> Iterator[tuple[Row, Pair, int]]:
    """Each pair again, with its row and its split; raise UserError where it is another now."""
    known = zip(keys.contents.data, keys.posts.data, splits.data, strict=True)
    changed = UserError("changed while it was read", where=source.path, remedy="run prepare again")
    for row, pair in _pairs_again(source):
        content, post, split = next(known, (None, None, DROPPED))
        if (content, post) != _keys_of(pair, source.seed):
            raise changed
        yield row, pair, split
    if next(known, None) is not None:
        raise changed


def _pairs_again(source: _Source) -> Iterator[tuple[Row, Pair]]:
    for row in _progress(read_rows(source.path, source.columns), "split"):
        try:
            pairs = pairs_of(row.content, source.columns, source.context_turns)
            yield from ((row, pair) for pair in pairs)
        except BadRowError:
            continue  # told and counted by the first pass


def _write_near_duplicates(output: Path, params: DataParams) -> dict[str, int]:
    """Name them in near_duplicates.jsonl; return how many test pairs have one.

    A test pair whose question is asked in train is named too, whatever the answers are.
    """
    tests: set[str] = set()
    same: set[str] = set()
    train, test = output / "train.jsonl", output / "test.jsonl"

    def noted() -> Iterator[NearDuplicate]:
        for near in near_duplicates(train, test, params.near_duplicates):
            tests.add(near.test)
            yield near
        for near in same_questions(train, test, params.near_duplicates.shingle_words):
            same.add(near.test)
            if near.similarity < params.near_duplicates.limit:
                yield near

    named = output / "near_duplicates.jsonl"
    write_records(named, noted())
    if same:
        asked = "1 test question is" if len(same) == 1 else f"{len(same)} test questions are"
        say(f"{params.path}: {asked} asked in train too, named in {named}")
    return {"near_duplicates": len(tests | same), "same_questions": len(same)}


def _progress(rows: Iterator[Row], name: str) -> Iterator[Row]:
    return iter(progress(rows, desc=name, unit="rows", scaled=True))
