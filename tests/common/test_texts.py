import pytest
from hypothesis import given
from hypothesis import strategies as st

from blogtune.common.texts import folded, sentence_ends, sentences


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("What  is\n it?", "What is it?", id="white space"),
        pytest.param("WHAT IS IT?", "what is it?", id="case"),
        pytest.param("Straße", "STRASSE", id="case that is not letter by letter"),
        pytest.param("cafe\u0301", "caf\u00e9", id="composition"),
    ],
)
def test_texts_that_read_the_same_are_compared_as_equal(one: str, other: str) -> None:
    assert folded(one) == folded(other)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("One. Two! Three?", ["One.", "Two!", "Three?"], id="full stops and the like"),
        pytest.param("A rank, e.g. eight. So.", ["A rank, e.g. eight.", "So."], id="e.g."),
        pytest.param("Set 1.5 here. Run it", ["Set 1.5 here.", "Run it"], id="a number, no end"),
        pytest.param("1. One\n2. Two", ["1. One", "2. Two"], id="a numbered list"),
        pytest.param('He said "so." Then', ['He said "so."', "Then"], id="a closing quote"),
        pytest.param("\u4e00\u3002\u4e8c", ["\u4e00\u3002", "\u4e8c"], id="ideographic full stop"),
        pytest.param(" \n ", [], id="white space"),
    ],
)
def test_sentences_end_where_a_reader_sees_the_end(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@given(st.text(st.sampled_from("ab1.!? \n)")))
def test_sentences_lose_nothing_but_white_space(text: str) -> None:
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())
    assert list(sentence_ends(text))[-1:] == [len(text)]
