# ruff: noqa: RUF001
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blogtune.checking.alterations import halved, negated, padded, renumbered, reordered

TEXT = st.text(st.sampled_from("ab 19.,?\n-is"), max_size=60)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("One. Two! Three?", "Three? Two! One.", id="last sentence first"),
        pytest.param("One sentence only.", None, id="one sentence"),
        pytest.param("Same. Same.", None, id="the same twice"),
        pytest.param("1. A one. B.\n2. Two.", "B. 1. A one.\n2. Two.", id="lines stay in place"),
        pytest.param("x = 1\ny = 2", None, id="code"),
    ],
)
def test_reordering_turns_the_sentences_of_a_line_round(text: str, expected: str | None) -> None:
    assert reordered(text) == expected


@given(TEXT)
def test_reordering_keeps_every_character_that_is_not_space(text: str) -> None:
    changed = reordered(text)
    assert changed is None or sorted("".join(changed.split())) == sorted("".join(text.split()))


def test_padding_keeps_the_text_and_adds_to_both_its_ends() -> None:
    found = padded("The rank is 8.")
    assert " The rank is 8. " in found
    assert len(found) > 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("One two three four.", "One two", id="even"),
        pytest.param("One two  three\nfour five.", "One two", id="odd: the shorter half"),
        pytest.param("One.", None, id="one word"),
        pytest.param("小屋有两个房间。", "小屋有两", id="letters where there are no spaces"),
    ],
)
def test_half_an_answer_is_its_first_words(text: str, expected: str | None) -> None:
    assert halved(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("The rank is low.", "The rank is not low.", id="a not put in"),
        pytest.param("The rank is not low.", "The rank is low.", id="a not taken out"),
        pytest.param("It does  not help.", "It does help.", id="with two spaces before it"),
        pytest.param("It doesn't help.", "It does help.", id="n't"),
        pytest.param("It cannot help.", "It can help.", id="cannot"),
        pytest.param("It won't help.", "It will help.", id="won't"),
        pytest.param("It never helps.", "It always helps.", id="never"),
        pytest.param("Yes, it is.", "No, it is not.", id="yes, and the verb"),
        pytest.param("No, both count.", "Yes, both count.", id="no alone"),
        pytest.param("It is low. It was high.", "It is not low. It was not high.", id="each one"),
        pytest.param(
            "It is low. Use more.", "It is not low. This is wrong: Use more.", id="one without verb"
        ),
        pytest.param("A isle has islands.", "A isle has not islands.", id="whole words only"),
        pytest.param("Der Rang ist klein.", None, id="another language"),
        pytest.param("Wer kommen will, muss buchen.", None, id="German with an English word"),
        pytest.param("No mês do agosto é preciso.", None, id="Portuguese with two"),
        pytest.param("Nothing here.", None, id="nothing to take hold of"),
    ],
)
def test_negation_turns_each_sentence_round(text: str, expected: str | None) -> None:
    assert negated(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Rank 8 of 16.", "Rank 3 of 56.", id="whole numbers"),
        pytest.param("8 and 8", "3 and 3", id="equal ones stay equal"),
        pytest.param("331,776 weights", "731,776 weights", id="thousands"),
        pytest.param("0.05 or 97.5%", "0.09 or 47.5%", id="decimals, the first digit not 0"),
        pytest.param("zero is 0", "zero is 4", id="zero"),
        pytest.param("at 8, then.", "at 3, then.", id="a comma behind it"),
        pytest.param("1.234,5 kg", "5.234,5 kg", id="a decimal comma"),
        pytest.param("1.234.567 kg", "5.234.567 kg", id="thousands with points"),
        pytest.param("可住８位，1921年", "可住３位，5921年", id="full width, and beside Chinese"),
        pytest.param("في عام \u0661\u0669", "في عام \u0665\u0669", id="Arabic-Indic"),
        pytest.param("\u0660\u066b\u0660\u0665", "\u0660\u066b\u0660\u0669", id="their decimals"),
        pytest.param("SmolLM2-135M, q4_K_M, Llama-3", None, id="digits of names"),
        pytest.param("Ollama 0.12.11", None, id="versions"),
        pytest.param("eight heads", None, id="numbers in words"),
    ],
)
def test_numbers_are_changed_where_they_stand_alone(text: str, expected: str | None) -> None:
    assert renumbered(text) == expected


@given(st.integers(0, 10**6).map(str) | st.floats(0, 1000).map(lambda x: f"{x:.3f}"))
def test_a_changed_number_is_another_number_of_the_same_form(number: str) -> None:
    changed = renumbered(number)
    assert changed is not None
    assert float(changed) != float(number)
    assert re.sub(r"\d", "0", changed) == re.sub(r"\d", "0", number)


@given(TEXT)
def test_no_alteration_gives_an_empty_answer(text: str) -> None:
    for alter in (reordered, halved, negated, renumbered):
        found = alter(text)
        assert found is None or found.strip()
