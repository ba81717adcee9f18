from collections import Counter
from random import Random
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blogtune.data.params import SplitParams
from blogtune.data.split import NAMES, Keys, assign, seeded_key

Blog = dict[str, int]
Assignment = dict[tuple[str, int], str]

BLOGS = st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 30), min_size=1, max_size=8)
SHARES = (
    st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8))
    .map(lambda parts: [part / sum(parts) for part in parts])
    .filter(lambda shares: abs(sum(shares) - 1) < 1e-9)
)
SEEDS = st.integers(0, 2**31 - 1)


def split_params(
    seed: int = 7,
    by: Literal["pair", "post"] = "pair",
    shares: tuple[float, ...] | list[float] = (0.7, 0.2, 0.1),
) -> SplitParams:
    train, validation, test = shares
    return SplitParams(by=by, train=train, validation=validation, test=test, seed=seed)


def assignment(
    blog: Blog, params: SplitParams, order: list[tuple[str, int]] | None = None
) -> Assignment:
    """The split of each pair of a blog given as pairs in each post, in the order given."""
    pairs = order or [(post, number) for post in blog for number in range(blog[post])]
    posts = keys(params, [f"post {post}" for post, _ in pairs])
    contents = keys(params, [f"{post} {number}" for post, number in pairs])
    splits = assign(posts, contents, params).tolist()
    return {pair: NAMES[split] for pair, split in zip(pairs, splits, strict=True)}


def keys(params: SplitParams, texts: list[str]) -> Keys:
    return np.array([seeded_key(params.seed, text) for text in texts], np.uint64)


@settings(deadline=None)
@given(BLOGS, SHARES, SEEDS)
def test_the_counts_of_each_post_are_within_one_of_exact(
    blog: Blog, shares: list[float], seed: int
) -> None:
    params = split_params(seed, shares=shares)
    counts = Counter((post, name) for (post, _), name in assignment(blog, params).items())
    for post, size in blog.items():
        for name, share in zip(NAMES, shares, strict=True):
            assert abs(counts[post, name] - share * size) <= 1 + 1e-6


@pytest.mark.parametrize("seed", range(10))
def test_the_whole_is_within_two_points_of_the_shares(seed: int) -> None:
    blog = {f"post {number}": 3 + number % 10 for number in range(60)}
    counts = Counter(assignment(blog, split_params(seed)).values())
    for name, share in zip(NAMES, (0.7, 0.2, 0.1), strict=True):
        assert counts[name] / counts.total() == pytest.approx(share, abs=0.02)


@settings(deadline=None)
@given(BLOGS, st.text(min_size=4, max_size=4), st.integers(1, 30), SEEDS, st.booleans())
def test_another_post_moves_no_pair(
    blog: Blog, added: str, size: int, seed: int, by_post: bool
) -> None:
    params = split_params(seed, by="post" if by_post else "pair")
    assert assignment(blog, params).items() <= assignment({added: size, **blog}, params).items()


@settings(deadline=None)
@given(BLOGS, SEEDS, st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_the_rows_does_not_matter(
    blog: Blog, seed: int, random: Random, by_post: bool
) -> None:
    params = split_params(seed, by="post" if by_post else "pair")
    expected = assignment(blog, params)
    shuffled = list(expected)
    random.shuffle(shuffled)
    assert assignment(blog, params, shuffled) == expected


@settings(deadline=None)
@given(BLOGS, SEEDS)
def test_by_post_no_post_is_in_two_splits(blog: Blog, seed: int) -> None:
    found = assignment(blog, split_params(seed, by="post"))
    assert len({(post, name) for (post, _), name in found.items()}) == len(blog)


def test_by_post_the_posts_follow_the_shares() -> None:
    found = assignment({str(number): 1 for number in range(5_000)}, split_params(by="post"))
    counts = Counter(found.values())
    assert counts["train"] / 5_000 == pytest.approx(0.7, abs=0.02)
    assert counts["test"] / 5_000 == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("by", ["pair", "post"])
def test_another_seed_gives_another_split(by: Literal["pair", "post"]) -> None:
    blog = {f"post {number}": 10 for number in range(20)}
    assert assignment(blog, split_params(1, by)) != assignment(blog, split_params(2, by))


def test_a_split_stays_what_it_always_was() -> None:
    found = list(assignment({"a": 5, "b": 4}, split_params()).values())
    assert found[:5] == ["test", "train", "train", "validation", "train"]
    assert found[5:] == ["train", "test", "train", "train"]


def test_a_key_tells_its_parts_apart() -> None:
    assert seeded_key(1, "a", "b") != seeded_key(1, "ab") != seeded_key(11, "b")


def test_no_pairs_have_no_splits() -> None:
    none = np.array([], np.uint64)
    assert assign(none, none, split_params()).shape == (0,)


def test_a_point_at_a_cut_belongs_to_the_share_above_it() -> None:
    posts = np.array([0, 2**62, 2**63, 3 * 2**62], np.uint64)
    params = split_params(by="post", shares=(0.25, 0.25, 0.5))
    assert assign(posts, posts, params).tolist() == [0, 1, 2, 2]


def test_even_with_the_highest_key_the_first_half_of_a_post_lies_below_the_half() -> None:
    posts = np.full(2, 2**64 - 1, np.uint64)
    params = split_params(shares=(0.5, 0.25, 0.25))
    assert assign(posts, np.arange(2, dtype=np.uint64), params).tolist() == [0, 2]
