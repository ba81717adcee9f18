"""data/valley: the posts hold together, with their table of facts and their questions."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pytest

from blogtune.common.records import Pair, read_records
from blogtune.data.pairs import pairs_of
from blogtune.data.prepare import prepare
from blogtune.data.sources import read_rows
from blogtune.project.settings import read_settings, use_profile

ROOT = Path(__file__).resolve().parents[2]
VALLEY = ROOT / "data/valley"
BLOG, TABLE = VALLEY / "raw", VALLEY / "facts.csv"
SITE = "https://huts.blogtune.example/"
# What a post is about, where the name in its questions is not in its address.
SUBJECTS = {
    "bus-and-train": "Veldra",
    "cold-spring": "Ticking Spring",
    "mule-post": "mule post",
    "old-wives-peak": "Old Wife's Peak",
    "postbus-path": "Post Bus Path",
    "storm-of-87": "storm of 1987",
    "weather-station": "Cold Shoulder",
}


class Post(NamedTuple):
    """A line of data/valley/raw, with its pairs."""

    slug: str
    date: str
    text: str
    pairs: list[Pair]

    @property
    def subject(self) -> str:
        return SUBJECTS.get(self.slug, self.slug.replace("-", " "))

    def asked(self, values: list[str]) -> list[Pair]:
        """The pairs that ask for the fact with these values."""
        return [pair for pair in self.pairs if pair.facts == values]


class Fact(NamedTuple):
    """A line of data/valley/facts.csv."""

    post: str
    fact: str
    values: list[str]


def read_posts() -> Iterator[Post]:
    for row in read_rows(BLOG):
        assert isinstance(row.content, bytes)
        line = json.loads(row.content)
        slug = line["url"].removeprefix(SITE)
        yield Post(slug, line["date"], line["context"], pairs_of(row.content))


def read_facts() -> Iterator[Fact]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            yield Fact(line["post"], line["fact"], line["values"].split(" | "))


POSTS = {post.slug: post for post in read_posts()}
FACTS = list(read_facts())

each_post = pytest.mark.parametrize("post", POSTS.values(), ids=lambda post: post.slug)


def says(text: str, value: str) -> bool:
    """Whether the value stands in the text by itself: 7 kilometres is not in 27 kilometres."""
    edges = rf"(?<![\w,.-]){re.escape(value)}(?![\w-]|[,.]\d)"
    return re.search(edges, text, re.IGNORECASE) is not None


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.casefold())


@pytest.mark.parametrize(
    ("text", "value", "found"),
    [
        pytest.param("It is 7 kilometres long.", "7 kilometres", True, id="itself"),
        pytest.param("It is 27 kilometres long.", "7 kilometres", False, id="a longer number"),
        pytest.param("It stands at 1,420 metres.", "420 metres", False, id="behind a comma"),
        pytest.param("It is 1.9 metres wide.", "9 metres", False, id="behind a point"),
        pytest.param("In 1911, or so.", "1911", True, id="before a comma"),
        pytest.param("Dogs and no dogsbody", "dog", False, id="a longer word"),
    ],
)
def test_a_value_is_found_by_itself_only(text: str, value: str, found: bool) -> None:
    assert says(text, value) == found


def test_there_are_as_many_posts_facts_and_pairs_as_the_datasheet_says() -> None:
    assert (len(POSTS), len(FACTS)) == (65, 520)
    assert sum(len(post.pairs) for post in POSTS.values()) == 2109
    assert len({post.date for post in POSTS.values()}) == 65
    told = (VALLEY / "README.md").read_text(encoding="utf-8")
    for file in sorted(BLOG.glob("*.jsonl")):
        lines = file.read_text(encoding="utf-8").splitlines()
        found = [POSTS[json.loads(line)["url"].removeprefix(SITE)] for line in lines]
        pairs = sum(len(post.pairs) for post in found)
        row = rf"`raw/{file.name}` \| .* \| {len(found)} \| {pairs} \|"
        assert re.search(row, told), file.name


@each_post
def test_a_post_has_its_length_and_eight_facts(post: Post) -> None:
    assert 150 <= len(post.text.split()) <= 350
    assert sum(fact.post == post.slug for fact in FACTS) == 8
    assert {tuple(pair.facts) for pair in post.pairs} == {
        tuple(fact.values) for fact in FACTS if fact.post == post.slug
    }


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: f"{fact.post}, {fact.fact}")
def test_a_fact_stands_in_its_post_and_its_answers_and_in_no_question(fact: Fact) -> None:
    post = POSTS[fact.post]
    asked = post.asked(fact.values)
    assert len(asked) in (4, 5)
    for value in fact.values:
        assert says(post.text, value)
        assert all(says(pair.answer, value) for pair in asked)
        assert not any(says(pair.question, value) for pair in asked)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: f"{fact.post}, {fact.fact}")
def test_no_other_post_tells_the_fact(fact: Fact) -> None:
    """No two sentences elsewhere name the subject with all the values."""
    post = POSTS[fact.post]
    for other in POSTS.values():
        if other is post or not says(other.text, post.subject):
            continue
        sentences = re.split(r"(?<=[.!?])'?\s+", other.text)
        for pair in zip(sentences, [*sentences[1:], ""], strict=True):
            told = " ".join(pair)
            assert not (says(told, post.subject) and all(says(told, v) for v in fact.values)), told


@each_post
def test_questions_and_answers_have_their_length(post: Post) -> None:
    for pair in post.pairs:
        assert pair.question.endswith("?")
        assert 8 <= len(pair.answer.split()) <= 25, pair.answer


@each_post
def test_a_fact_is_asked_in_truly_different_words(post: Post) -> None:
    for fact in (fact for fact in FACTS if fact.post == post.slug):
        asked = post.asked(fact.values)
        for one, other in combinations(asked, 2):
            first, second = set(words(one.question)), set(words(other.question))
            assert len(first & second) / len(first | second) < 0.6, (one.question, other.question)
        assert len({pair.answer for pair in asked}) >= 2


def test_no_question_is_asked_twice() -> None:
    counts = Counter(pair.question.casefold() for post in POSTS.values() for pair in post.pairs)
    assert counts.most_common(1)[0][1] == 1


def test_its_split_holds_out_wordings_of_facts_that_are_trained(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_bytes((ROOT / "params.yaml").read_bytes())
    use_profile(ROOT / "profiles/smollm2.yaml", params)
    use_profile(ROOT / "profiles/valley.yaml", params)
    data = read_settings(params).data
    assert Path(data.path) == BLOG.relative_to(ROOT)
    metrics = prepare(data.model_copy(update={"path": str(BLOG)}), tmp_path)
    assert metrics["near_duplicates"] == 0
    parts = {
        name: list(read_records(tmp_path / f"{name}.jsonl", Pair))
        for name in ("train", "valid", "test")
    }
    trained = {(pair.post, *pair.facts) for pair in parts["train"]}
    answers = {pair.answer for pair in parts["train"]}
    for name in ("valid", "test"):
        known = [(pair.post, *pair.facts) in trained for pair in parts[name]]
        assert sum(known) >= 0.98 * len(known)
        assert not any(pair.answer in answers for pair in parts[name])
