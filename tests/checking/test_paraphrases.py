"""The paraphrases of both sample blogs: their answers in other words."""

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import pytest

from blogtune.checking.fitness import measure_fitness
from blogtune.checking.probes import Paraphrase, match
from blogtune.common.records import Pair, read_records
from blogtune.data.pairs import pairs_of
from blogtune.data.sources import read_rows
from blogtune.judging.embedding import EmbeddingJudge
from blogtune.project.settings import read_settings
from tests.judging.test_encoder import minilm

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Blog:
    """A sample blog: its folder and how many paraphrases it has."""

    folder: Path
    count: int

    @cached_property
    def rows(self) -> list[Paraphrase]:
        return list(read_records(self.folder.parent / "paraphrases.jsonl", Paraphrase))

    @cached_property
    def pairs(self) -> list[Pair]:
        rows = read_rows(self.folder)
        return list(chain.from_iterable(pairs_of(row.content) for row in rows))


HANDBOOK, VALLEY = Blog(ROOT / "data/raw", 70), Blog(ROOT / "data/valley/raw", 65)
each_blog = pytest.mark.parametrize("blog", [HANDBOOK, VALLEY], ids=["handbook", "valley"])
# A judge that counted common words would recognise a longer run.
SHARED_WORDS = 5


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


def runs(text: str) -> set[tuple[str, ...]]:
    """All runs of SHARED_WORDS words."""
    found = re.findall(r"\w+", text.casefold())
    return {tuple(found[at : at + SHARED_WORDS]) for at in range(len(found) - SHARED_WORDS + 1)}


@each_blog
def test_each_paraphrase_matches_a_pair_of_the_blog(blog: Blog) -> None:
    matched = match(blog.rows, blog.pairs)
    assert len(blog.rows) == len(matched) == blog.count
    by_question = {pair.question: pair.id for pair in blog.pairs}
    assert list(matched.values()) == [row.paraphrase for row in blog.rows]
    assert list(matched) == [by_question[row.question] for row in blog.rows]


@each_blog
def test_each_post_has_one(blog: Blog) -> None:
    by_question = {pair.question: pair.post for pair in blog.pairs}
    posts = [by_question[row.question] for row in blog.rows]
    assert len(set(posts)) == blog.count
    assert set(posts) == {pair.post for pair in blog.pairs}


@pytest.mark.parametrize("row", HANDBOOK.rows, ids=lambda row: row.question)
def test_a_paraphrase_says_it_in_other_words_at_about_the_same_length(row: Paraphrase) -> None:
    reference = next(pair.answer for pair in HANDBOOK.pairs if pair.question == row.question)
    assert not runs(row.paraphrase) & runs(reference)
    assert 0.7 <= len(row.paraphrase.split()) / len(reference.split()) <= 1.45


@pytest.mark.parametrize("row", VALLEY.rows, ids=lambda row: row.question)
def test_a_paraphrase_of_a_fact_keeps_its_values_and_little_else(row: Paraphrase) -> None:
    pair = next(pair for pair in VALLEY.pairs if pair.question == row.question)
    said = row.paraphrase.casefold()
    assert all(value.casefold() in said for value in pair.facts)
    given = words(f"{pair.question} {' '.join(pair.facts)}")
    ours, theirs = words(row.paraphrase), words(pair.answer)
    assert ours & theirs & words(pair.question)  # it says of whom
    assert len((ours & theirs) - given) / len((ours | theirs) - given) < 0.5


@pytest.mark.slow
def test_the_embedding_judge_is_fit_to_judge_the_handbook() -> None:
    check_fit(HANDBOOK, posts=70)


@pytest.mark.slow
def test_the_embedding_judge_is_fit_to_judge_the_valley() -> None:
    check_fit(VALLEY, posts=65)


def check_fit(blog: Blog, posts: int) -> None:
    judge = EmbeddingJudge(minilm())
    params = read_settings(ROOT / "params.yaml").judge.check
    found = measure_fitness(judge, judge, blog.pairs, blog.rows, params)
    assert found.fit
    assert (found.questions, found.posts, found.paraphrases) == (100, posts, posts)
    assert found.auc_against["other_post"] >= 0.95
    # What it cannot see is told, and changes with another encoder only.
    assert found.blind_spots == "echo, negation, numbers"
