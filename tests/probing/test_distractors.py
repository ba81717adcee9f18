"""What a wrong answer must be: of the same kind, another text, and chosen by the seed alone."""

import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blogtune.common.records import Pair
from blogtune.common.texts import folded
from blogtune.probing.distractors import Distractors
from blogtune.probing.params import ProbeParams
from blogtune.probing.values import Values

HUTS = ("Oxbow", "Karsk", "Ullin", "Tolm", "Maddern")
BEDS = (44, 38, 24, 26, 15)
WARDENS = ("Freya Langdon", "Anton Bright", "Ruth Abernethy", "Bruno Tapp", "Petra Lund")
YEARS = (1903, 1911, 1908, 1934, 1897)
OPENS = ("21 May", "1 July", "3 June", "20 June", "12 May")


def hut(number: int, *, named: bool) -> list[Pair]:
    """Four facts of a post, with the values that the data name, or without them."""
    name = HUTS[number]
    told = [
        ("How many sleep there?", f"{name} Hut has {BEDS[number]} beds.", f"{BEDS[number]} beds"),
        ("Who keeps it?", f"It is kept by {WARDENS[number]}, as ever.", WARDENS[number]),
        ("How old is it?", f"They built it in {YEARS[number]}.", str(YEARS[number])),
        ("When can one come?", f"It opens on {OPENS[number]} each year.", OPENS[number]),
    ]
    return [
        Pair(
            id=f"{name}{row}",
            post=name,
            question=f"{name} Hut: {question}",
            answer=answer,
            facts=[fact] if named else [],
        )
        for row, (question, answer, fact) in enumerate(told)
    ]


def blog(*, named: bool = True) -> list[Pair]:
    return [pair for number in range(len(HUTS)) for pair in hut(number, named=named)]


def params(distractors: int = 3, seed: int = 7) -> ProbeParams:
    return ProbeParams(seed=seed, distractors=distractors)


def texts(pairs: list[Pair], pair: Pair, kind: str, given: ProbeParams | None = None) -> list[str]:
    found = Distractors(pairs, pairs, given or params()).of(pair)
    return [each.text for each in found if each.kind == kind]


@pytest.mark.parametrize("named", [True, False], ids=["the data name them", "by rule"])
@pytest.mark.parametrize(
    ("row", "pattern", "others"),
    [
        (0, r"Oxbow Hut has (\d+) beds\.", {str(each) for each in BEDS[1:]}),
        (1, r"It is kept by (\w+ \w+), as ever\.", set(WARDENS[1:])),
        (2, r"They built it in (\d{4})\.", {str(each) for each in YEARS[1:]}),
        (3, r"It opens on (\d+ \w+) each year\.", set(OPENS[1:])),
    ],
    ids=["number", "name", "year", "date"],
)
def test_a_value_is_exchanged_for_another_post_s_of_its_kind(
    named: bool, row: int, pattern: str, others: set[str]
) -> None:
    pairs = blog(named=named)
    found = texts(pairs, pairs[row], "other_value")
    values = {match[1] for text in found if (match := re.fullmatch(pattern, text))}
    assert len(found) == len(values) == 3
    assert values <= others


def test_a_value_of_the_same_unit_goes_before_any_other_number() -> None:
    pairs = [
        *blog(),
        Pair(id="m", post="lake", question="How deep?", answer="74 metres.", facts=["74 metres"]),
    ]
    lake = pairs[-1]
    assert {text.split()[1] for text in texts(pairs, lake, "other_value")} == {"metres."}
    beds = texts(pairs, pairs[0], "other_value", params(distractors=9))
    assert [text.split()[3] for text in beds[-1:]] == ["74"]
    assert len(beds) == 5


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        pytest.param("SmolLM2-135M has 30 blocks.", ["30"], id="a number in a name"),
        pytest.param("One of them is enough for anybody.", [], id="one as an article"),
        pytest.param("It asks “And why?” of all.", [], id="a capital in a quotation"),
        pytest.param("It is \ufb01xed at 30 blocks.", [], id="a ligature moves all places"),
        pytest.param("At 7:30 it is Emil's turn.", ["7:30", "Emil"], id="a time, a possessive"),
        pytest.param("Nothing to exchange here.", [], id="nothing"),
    ],
)
def test_the_values_found_by_rule(answer: str, told: list[str]) -> None:
    pair = Pair(id="a", post=None, question="Why?", answer=answer)
    other = Pair(id="b", post=None, question="What?", answer="black and white")
    found = Values([pair, other]).of(pair)
    assert [place.text for place in found] == told
    assert [answer[place.start : place.end] for place in found] == told


def test_a_value_is_exchanged_wherever_it_stands_and_in_any_writing() -> None:
    answer = "No more than forty-four, for there are 44 beds and 44 hooks."
    twice = Pair(id="t", post="t", question="?", answer=answer, facts=["44 beds"])
    found = texts([twice, *blog()], twice, "other_value")
    assert len(found) == 3
    for text in found:
        match = re.fullmatch(r"No more than (\w+), for there are \1 beds and \1 hooks\.", text)
        assert match is not None
        assert match[1] != "44"


def test_words_that_are_no_name_are_exchanged_for_as_many_in_the_sentence_s_case() -> None:
    answers = ("Pike cakes with dill are served.", "They serve thin soup of leek.", "Oat bread.")
    facts = ("pike cakes with dill", "thin soup of leek", "Oat bread")
    pairs = [
        Pair(id=str(row), post=str(row), question="?", answer=answer, facts=[fact])
        for row, (answer, fact) in enumerate(zip(answers, facts, strict=True))
    ]
    assert texts(pairs, pairs[0], "other_value") == ["Thin soup of leek are served."]
    assert texts(pairs, pairs[1], "other_value") == ["They serve pike cakes with dill."]
    assert texts(pairs, pairs[2], "other_value") == []


def test_an_answer_that_says_the_same_fact_is_no_distractor() -> None:
    pairs = blog()
    again = pairs[0].model_copy(update={"id": "again", "question": "Beds?", "answer": "44 beds."})
    found = texts([*pairs, again], pairs[0], "same_post")
    assert sorted(found) == sorted(pair.answer for pair in pairs[1:4])
    unnamed = blog(named=False)
    again = again.model_copy(update={"facts": []})
    assert again.answer not in texts([*unnamed, again], unnamed[0], "same_post")


def test_a_pair_of_no_post_has_none_of_its_post() -> None:
    pairs = [pair.model_copy(update={"post": None}) for pair in blog()]
    assert texts(pairs, pairs[0], "same_post") == []
    assert len(texts(pairs, pairs[0], "other_value")) == 3


def test_pairs_that_were_trained_on_give_values_and_no_answers() -> None:
    pairs = blog()
    found = Distractors(pairs[:2], pairs, params()).of(pairs[0])
    assert [each.text for each in found if each.kind == "same_post"] == [pairs[1].answer]
    assert len(found) == 4


@given(st.integers(0, 1000), st.integers(1, 6), st.booleans())
def test_the_rules_hold_whatever_the_seed(seed: int, distractors: int, named: bool) -> None:
    pairs = blog(named=named)
    given, mixed = params(distractors, seed), pairs.copy()
    Random(seed).shuffle(mixed)
    one, other = Distractors(pairs, pairs, given), Distractors(mixed, mixed, given)
    for pair in pairs[:8]:
        found = one.of(pair)
        # The order of the data is no part of it, and a seed gives the same again.
        assert found == other.of(pair)
        all_texts = [folded(pair.answer), *(folded(each.text) for each in found)]
        assert len({*all_texts}) == len(all_texts)
        for kind in ("same_post", "other_value"):
            assert sum(each.kind == kind for each in found) <= distractors


def test_another_seed_chooses_others() -> None:
    pairs = blog()
    drawn = {tuple(texts(pairs, pairs[0], "other_value", params(1, seed))) for seed in range(20)}
    assert len(drawn) > 1


@given(st.text(max_size=60), st.lists(st.text(max_size=12), max_size=3))
def test_any_text_is_taken(answer: str, facts: list[str]) -> None:
    odd = Pair(id="odd", post="Oxbow", question=answer[:9], answer=answer, facts=facts)
    pairs = [odd, *blog()]
    for pair in pairs[:2]:
        for each in Distractors(pairs, pairs, params()).of(pair):
            assert folded(each.text) != folded(pair.answer)
