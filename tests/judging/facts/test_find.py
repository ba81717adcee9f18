from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blogtune.checking.alterations import negated, padded, renumbered
from blogtune.common.records import Facts, Pair
from blogtune.data.pairs import pairs_of
from blogtune.data.sources import read_rows
from blogtune.judging.facts.find import find_facts, kind_of, turned
from blogtune.judging.facts.values import Vocabulary

ROOT = Path(__file__).resolve().parents[3]
VALLEY = [pair for row in read_rows(ROOT / "data/valley/raw") for pair in pairs_of(row.content)]
WORDS = Vocabulary(VALLEY)


def found(reference: str, answer: str, *named: str, question: str = "What is it?") -> Facts:
    facts = find_facts(question, reference, answer, named, WORDS)
    assert facts is not None
    return facts


BEDS = "Brannock Hut has 38 beds for the people who sleep there."


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        pytest.param("There are 38 beds in Brannock Hut.", True, id="other words"),
        pytest.param("You count on thirty-eight beds.", True, id="number in words"),
        pytest.param("Brannock Hut has 24 beds.", False, id="another number"),
        pytest.param("It has 138 beds.", False, id="inside a longer number"),
        pytest.param("It has 38 beds, or 24 beds.", False, id="another number besides"),
        pytest.param("It has 38 beds and 24 chairs.", True, id="another number of another thing"),
        pytest.param("It has not 38 beds.", False, id="negated"),
        pytest.param("It isn't old, and has 38 beds.", True, id="negated elsewhere"),
        pytest.param("It has many beds.", False, id="no number"),
        pytest.param("", False, id="empty"),
    ],
)
def test_a_number_with_its_unit(answer: str, right: bool) -> None:
    assert found(BEDS, answer, "38 beds").right == right


@pytest.mark.parametrize(
    ("reference", "named", "answer", "right"),
    [
        pytest.param("It opens on 3 May.", "3 May", "From May 3rd on.", True, id="date"),
        pytest.param("It opens on 3 May.", "3 May", "On 3 May 2024.", True, id="date, a year more"),
        pytest.param("On 4 March 1984.", "4 March 1984", "On 4 March.", False, id="a year less"),
        pytest.param("It opens on 3 May.", "3 May", "On 3 May or 4 May.", False, id="two dates"),
        pytest.param("It leaves at 18:40.", "18:40", "At 6.40 pm.", True, id="time"),
        pytest.param("It leaves at 18:40.", "18:40", "At 18:45.", False, id="another time"),
        pytest.param("It is from 1911.", "1911", "In 1911 it was built.", True, id="year"),
        pytest.param("It is from 1911.", "1911", "Between 1911 and 1934.", False, id="two years"),
        pytest.param("Ask Marta Ilves.", "Marta Ilves", "Marta Ilves.", True, id="name"),
        pytest.param(
            "Ask Marta Ilves.", "Marta Ilves", "It is Silvan Roe.", False, id="other name"
        ),
        pytest.param("It has no shower.", "no shower", "It has no shower.", True, id="negation"),
        pytest.param("It has no shower.", "no shower", "It has two showers.", False, id="affirmed"),
        pytest.param("Yes, it is 7 m.", "7 m", "No, it is 7 m.", False, id="No for Yes"),
        pytest.param("It is 7 m.", "7 m", "Yes, it is 7 metres.", True, id="Yes for nothing"),
    ],
)
def test_values_of_each_kind(reference: str, named: str, answer: str, right: bool) -> None:
    assert found(reference, answer, named).right == right


def test_precision_and_recall_are_of_values() -> None:
    facts = found("Pea soup, 12 beds.", "It has 12 beds, no, 14 beds.", "pea soup", "12 beds")
    assert (facts.missing, facts.contrary, facts.right) == (["pea soup"], ["14"], False)
    assert (facts.precision, facts.recall, facts.f1) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("question", "reference", "expected"),
    [
        pytest.param("How high is it?", "It is 2,140 metres high.", ["2140 metre"], id="unit"),
        pytest.param("Is it 12 m high?", "Yes, it is 12 m high.", None, id="the question gives it"),
        pytest.param("Who is there?", "There it is Marta Ilves.", ["marta ilves"], id="name"),
        pytest.param("When?", "It is at half past nine.", ["9:30"], id="time"),
        pytest.param("What roof is it?", "It is a zinc roof.", ["zinc"], id="rare word"),
        pytest.param("What is it?", "It is the hut.", None, id="nothing"),
    ],
)
def test_values_are_found_by_rule_where_the_data_name_none(
    question: str, reference: str, expected: list[str] | None
) -> None:
    facts = find_facts(question, reference, reference, [], WORDS)
    assert (facts and facts.expected) == expected
    assert facts is None or facts.right


pair_of_the_valley = st.sampled_from(VALLEY)


@given(pair_of_the_valley, st.booleans())
def test_a_reference_is_right_by_itself_and_within_padding_and_its_question_is_not(
    pair: Pair, by_rule: bool
) -> None:
    named: Sequence[str] = [] if by_rule else pair.facts
    asked = (pair.question, pair.answer)
    itself = find_facts(*asked, pair.answer, named, WORDS)
    if itself is None:
        assert by_rule
        return
    assert (itself.right, itself.f1) == (True, 1.0)
    echoed = find_facts(*asked, pair.question, named, WORDS)
    assert echoed is not None
    assert not echoed.right


@given(pair_of_the_valley, pair_of_the_valley)
def test_another_fact_s_answer_is_not_right(one: Pair, other: Pair) -> None:
    facts = found(one.answer, other.answer, *one.facts, question=one.question)
    assert 0.0 <= facts.f1 <= 1.0
    assert facts.right <= (set(one.facts) <= set(other.facts) or _says_all(other, one))


def _says_all(other: Pair, one: Pair) -> bool:
    return all(fact.casefold() in other.answer.casefold() for fact in one.facts)


def share_right(answers: Sequence[tuple[Pair, str]]) -> float:
    rights = [found(p.answer, text, *p.facts, question=p.question).right for p, text in answers]
    return sum(rights) / len(rights)


def test_on_the_valley_it_sees_what_an_embedding_does_not() -> None:
    numbers = [(pair, text) for pair in VALLEY if (text := renumbered(pair.answer))]
    negations = [(pair, text) for pair in VALLEY if (text := negated(pair.answer))]
    assert share_right(numbers) < 0.05
    assert share_right(negations) < 0.2
    assert share_right([(pair, padded(pair.answer)) for pair in VALLEY]) > 0.99


def test_on_the_valley_other_wordings_of_a_fact_are_right() -> None:
    answers = [
        (one, other.answer)
        for one in VALLEY
        for other in VALLEY
        if one.post == other.post and one.facts == other.facts and one is not other
        if not turned(one.answer, other.answer)
    ]
    assert share_right(answers) > 0.97


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("38 beds", "24 beds"),
        ("1911", "1934"),
        ("3 May", "18 June"),
        ("half past nine", "18:40"),
        ("Marta Ilves", "Silvan Roe"),
        ("apricot dumplings", "cabbage rolls"),
    ],
)
def test_values_of_one_kind_can_be_exchanged(one: str, other: str) -> None:
    assert kind_of(one) == kind_of(other)


def test_values_of_different_kinds_cannot() -> None:
    values = ["38 beds", "1911", "3 May", "18:40", "Marta Ilves", "apricot dumplings"]
    assert len({kind_of(value) for value in values}) == len(values)
