"""data/paraphrases.jsonl: answers of the bundled blog in other words."""

import re
from itertools import chain
from pathlib import Path

import pytest

from blogtune.checking.fitness import measure_fitness
from blogtune.checking.probes import Paraphrase, match
from blogtune.common.records import Pair, read_records
from blogtune.data.pairs import pairs_of
from blogtune.judging.embedding import EmbeddingJudge
from blogtune.project.settings import read_settings
from tests.judging.test_encoder import minilm

ROOT = Path(__file__).resolve().parents[2]
THEMES = ("lora", "training", "evaluation", "judges", "pipelines", "data", "serving")
ROWS = list(read_records(ROOT / "data/paraphrases.jsonl", Paraphrase))
# A judge that counted common words would recognise a longer run.
SHARED_WORDS = 5


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    files = (ROOT / "data/raw" / f"{theme}.jsonl" for theme in THEMES)
    lines = chain.from_iterable(file.read_bytes().splitlines() for file in files)
    return list(chain.from_iterable(map(pairs_of, lines)))


def runs(text: str) -> set[tuple[str, ...]]:
    """All runs of SHARED_WORDS words."""
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[at : at + SHARED_WORDS]) for at in range(len(words) - SHARED_WORDS + 1)}


def test_each_paraphrase_matches_a_pair_of_the_blog(pairs: list[Pair]) -> None:
    matched = match(ROWS, pairs)
    assert len(ROWS) == len(matched) == 70
    by_question = {pair.question: pair.id for pair in pairs}
    assert list(matched.values()) == [row.paraphrase for row in ROWS]
    assert list(matched) == [by_question[row.question] for row in ROWS]


def test_each_post_has_one_in_the_order_of_the_posts(pairs: list[Pair]) -> None:
    posts = list(dict.fromkeys(pair.post for pair in pairs))
    by_question = {pair.question: pair.post for pair in pairs}
    assert [by_question[row.question] for row in ROWS] == posts


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.question)
def test_a_paraphrase_says_it_in_other_words_at_about_the_same_length(
    row: Paraphrase, pairs: list[Pair]
) -> None:
    reference = next(pair.answer for pair in pairs if pair.question == row.question)
    assert not runs(row.paraphrase) & runs(reference)
    assert 0.7 <= len(row.paraphrase.split()) / len(reference.split()) <= 1.45


@pytest.mark.slow
def test_the_embedding_judge_is_fit_to_judge_the_bundled_blog(pairs: list[Pair]) -> None:
    judge = EmbeddingJudge(minilm())
    params = read_settings(ROOT / "params.yaml").judge.check
    found = measure_fitness(judge, judge, pairs, ROWS, params)
    assert found.fit
    assert (found.questions, found.posts, found.paraphrases) == (100, 70, 70)
    assert found.auc_against["other_post"] >= 0.95
    # What it cannot see is told, and changes with another encoder only.
    assert found.blind_spots == "echo, negation, numbers"
