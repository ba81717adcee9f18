import pytest
from hypothesis import given
from hypothesis import strategies as st

from blogtune.judging.facts.numbers import SMALL, TENS, from_digits, from_words


def spelled(number: int) -> str:
    """A number below a million in English words, written without the code under test."""
    if number >= 1000:
        rest = f" {spelled(number % 1000)}" if number % 1000 else ""
        return f"{spelled(number // 1000)} thousand{rest}"
    if number >= 100:
        rest = f" and {spelled(number % 100)}" if number % 100 else ""
        return f"{spelled(number // 100)} hundred{rest}"
    names = {value: word for word, value in (*SMALL.items(), *TENS.items())}
    return names[number] if number in names else f"{names[number // 10 * 10]} {names[number % 10]}"


@given(st.integers(0, 999_999))
def test_a_number_in_words_is_the_number(number: int) -> None:
    words = spelled(number).split()
    assert from_words(words) == (str(number), len(words))
    assert from_words([*words, "beds"]) == (str(number), len(words))


@given(st.integers(0, 10**9))
def test_separators_do_not_change_a_number(number: int) -> None:
    grouped = f"{number:,}"
    assert from_digits(grouped) == from_digits(grouped.replace(",", " ")) == str(number)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,420", "1420"),
        ("1.234.567", "1234567"),
        ("98.3", "98.3"),
        ("7,5", "7.5"),
        ("1,420.50", "1420.5"),
        ("12.0", "12"),
        ("007", "7"),
        ("\u0663\u0668", "38"),
    ],
)
def test_digits_are_read_as_they_are_meant(text: str, number: str) -> None:
    assert from_digits(text) == number


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param("seven fifteen", ("7", 1), id="two numbers"),
        pytest.param("six to eight", ("6", 1), id="from one to another"),
        pytest.param("two and twenty", ("2", 1), id="and"),
        pytest.param("third step", ("3rd", 1), id="ordinal"),
        pytest.param("twenty first of", ("21st", 2), id="ordinal of two words"),
        pytest.param("and", ("", 0), id="none"),
        pytest.param("", ("", 0), id="nothing"),
    ],
)
def test_what_is_one_number_and_what_is_not(words: str, expected: tuple[str, int]) -> None:
    assert from_words(words.split()) == expected
