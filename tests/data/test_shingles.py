import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blogtune.data.shingles import Sketcher, jaccard, shingles

TEXTS = st.lists(st.sampled_from("abcd"), max_size=12).map(" ".join)


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        pytest.param("a b c d", 3, {("a", "b", "c"), ("b", "c", "d")}, id="runs of words"),
        pytest.param("a b a b", 2, {("a", "b"), ("b", "a")}, id="each once"),
        pytest.param("A, b: C!", 3, {("a", "b", "c")}, id="case and punctuation"),
        pytest.param("Caf\u00e9 cafe\u0301", 1, {("caf\u00e9",)}, id="composition"),
        pytest.param("山屋的水", 2, {("山屋", "屋的"), ("屋的", "的水")}, id="Chinese: bigrams"),
        pytest.param("a b", 3, {("a b", "", "")}, id="too short: the whole text"),
        pytest.param("?!", 3, {("?!", "", "")}, id="without words: the whole text"),
        pytest.param("", 1, {("",)}, id="empty"),
    ],
)
def test_the_shingles_of_a_text(text: str, words: int, expected: set[tuple[str, ...]]) -> None:
    assert shingles(text, words) == expected


@pytest.mark.parametrize(
    ("one", "other", "similarity"),
    [
        pytest.param("a b c", "a b c", 1.0, id="the same"),
        pytest.param("a b c d", "a b c", 0.75, id="one word more"),
        pytest.param("a b", "c d", 0.0, id="nothing shared"),
    ],
)
def test_the_similarity_is_the_shared_part(one: str, other: str, similarity: float) -> None:
    assert jaccard(shingles(one, 1), shingles(other, 1)) == similarity


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=2, max_size=6), st.integers(1, 3), st.sampled_from([0.3, 0.5, 0.8]))
def test_the_sketches_of_texts_that_resemble_each_other_meet(
    texts: list[str], words: int, limit: float
) -> None:
    sketcher = Sketcher(words, limit)
    sketcher.count(texts)
    sketch = sketcher.sketch(texts)
    exact = [shingles(text, words) for text in texts]
    for one in range(len(texts)):
        for other in range(len(texts)):
            if jaccard(exact[one], exact[other]) >= limit:
                own, others = sketch.text == one, sketch.text == other
                assert np.intersect1d(sketch.key[own], sketch.key[others]).size


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=6), st.integers(1, 3))
def test_a_sketch_counts_distinct_shingles(texts: list[str], words: int) -> None:
    sketch = Sketcher(words, 0.5).sketch(texts)
    for text, size in zip(sketch.text.tolist(), sketch.size.tolist(), strict=True):
        assert size == len(shingles(texts[text], words))
