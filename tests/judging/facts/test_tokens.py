import pytest
from hypothesis import given
from hypothesis import strategies as st

from blogtune.judging.facts.dates import MONTHS
from blogtune.judging.facts.tokens import plain, tokens


def keys(text: str) -> list[str]:
    return [token.key for token in tokens(text)]


@pytest.mark.parametrize(
    "same",
    [
        pytest.param(["38 beds", "thirty-eight beds", "\uff13\uff18 beds"], id="number"),
        pytest.param(["1,420 metres", "1420 m", "1 420 meters"], id="unit"),
        pytest.param(["3 May", "May 3", "the 3rd of May", "3. Mai", "5月3日"], id="date"),
        pytest.param(["23 August 1972", "August 23, 1972", "1972-08-23"], id="date with a year"),
        pytest.param(["7:30", "half past seven", "19:30", "7.30 pm", "7:30 p.m."], id="half past"),
        pytest.param(["five twenty", "5 20"], id="no time without a word that says so"),
        pytest.param(["6:45", "quarter to seven", "a quarter to 7"], id="quarter to"),
        pytest.param(["twenty past five", "5:20", "17:20"], id="minutes past"),
        pytest.param(["seven o'clock", "7 o\u2019clock", "7 pm"], id="full hour"),
        pytest.param(["The old Milk room!", "old milk room"], id="case, article, mark"),
        pytest.param(["40%", "40 percent"], id="percent"),
        pytest.param(["19th stair", "nineteenth stair"], id="ordinal"),
        pytest.param(["1,219th stair", "1 219th stair"], id="grouped ordinal"),
        pytest.param(["Emil's hat", "Emil\u2019s hat"], id="apostrophe"),
        pytest.param(["caf\u00e9", "cafe\u0301"], id="composed"),
    ],
)
def test_what_says_the_same_has_the_same_tokens(same: list[str]) -> None:
    assert len({tuple(keys(text)) for text in same}) == 1, [keys(text) for text in same]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("7 kilometres", "27 kilometres"),
        ("3 May", "13 May"),
        ("1.42 metres", "1,420 metres"),
        ("from six to eight", "at 7:54"),
        ("98.3", "983"),
        ("third", "three"),
    ],
)
def test_what_says_another_thing_has_other_tokens(one: str, other: str) -> None:
    assert keys(one) != keys(other)


def test_writing_without_spaces_is_read_by_characters() -> None:
    assert keys("山小屋は41床") == ["山", "小", "屋", "は", "41", "床"]


def test_clauses_end_at_marks_and_conjunctions() -> None:
    found = tokens("No, it is old; built in 1911 and warm. One-eyed Pirate.")
    clauses = {token.key: token.clause for token in found}
    assert len({clauses[word] for word in ("no", "it", "built", "warm", "pirate")}) == 5
    assert clauses["1"] == clauses["pirate"]


def test_capitals_at_the_beginning_of_a_sentence_are_known() -> None:
    found = {token.key: (token.capital, token.opens) for token in tokens("Ask Marta. She knows.")}
    assert found == {
        "ask": (True, True),
        "marta": (True, False),
        "she": (True, True),
        "knows": (False, False),
    }


@given(st.text())
def test_any_text_has_tokens_that_do_not_depend_on_its_white_space_or_case(text: str) -> None:
    assert keys(text) == keys(f" {text}\t")


def test_each_token_says_where_it_stands() -> None:
    text = "Emil\u2019s forty-one beds, from 3 May at half past seven."
    found = [plain(text)[token.start : token.end] for token in tokens(text)]
    assert found == ["Emil's", "forty-one", "beds", "from", "3 May", "at", "half past seven"]


@given(st.text())
def test_places_lie_in_the_text_one_behind_the_other(text: str) -> None:
    found = tokens(text)
    ends = [0, *(token.end for token in found)]
    assert all(end <= token.start < token.end for end, token in zip(ends, found, strict=False))
    assert ends[-1] <= len(plain(text))


@given(st.sampled_from(sorted(MONTHS)), st.integers(1, 28), st.integers(1000, 2999))
def test_a_date_is_one_token_in_both_orders(month: str, day: int, year: int) -> None:
    expected = [f"{year}-{MONTHS[month]:02}-{day:02}"]
    assert keys(f"{day} {month} {year}") == keys(f"{month.title()} {day}, {year}") == expected


DIGITS = st.text(st.sampled_from("0123456789.,:'- stndrhamp\u0663\u00b2\uff11"), max_size=30)


@given(
    st.lists(st.one_of(DIGITS, st.sampled_from(["19th", "2nd", "o'clock", "May"]))).map(" ".join)
)
def test_whatever_is_written_in_digits_is_read(text: str) -> None:
    assert tokens(text) == tokens(text)


def test_more_digits_than_python_reads_are_a_number() -> None:
    assert keys("0" * 10 + "7" * 6000) == ["7" * 6000]
    assert keys("7" * 6000 + "th") == ["7" * 6000 + "th"]
    assert keys("7" * 6000 + " thousand") != []
