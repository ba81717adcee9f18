from collections.abc import Sequence
from random import Random
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blogtune.checking.figures import Kind
from blogtune.checking.probes import (
    INSTRUCTIONS,
    REFUSALS,
    Paraphrase,
    Probe,
    build_probes,
    match,
)
from blogtune.common.records import Pair
from blogtune.judging.params import CheckParams
from blogtune.judging.protocol import Item


def check_params(**changes: Any) -> CheckParams:
    values: dict[str, Any] = {
        "items": 100,
        "seed": 7,
        "paraphrases": "data/paraphrases.jsonl",
        "min_right": 10,
        "min_auc": 0.9,
        "max_unscored": 0.05,
        "min_retest_agreement": 0.95,
        "min_drop": 0.1,
        "max_instruction_gain": 0.1,
    }
    return CheckParams.model_validate({**values, **changes})


def pair(name: str, post: str | None = "p", **changes: str) -> Pair:
    values = {"question": f"What is {name}?", "answer": f"It is {name}. It has 8 parts."}
    return Pair(id=name, post=post, **{**values, **changes})


def pairs(posts: int = 3, each: int = 3) -> list[Pair]:
    return [pair(f"{post}{row}", f"post {post}") for post in range(posts) for row in range(each)]


def with_facts() -> list[Pair]:
    """Two wordings of one fact and another fact in each post."""
    rows = [
        ("00", "4 legs"),
        ("01", "4 legs"),
        ("02", "5 arms"),
        ("10", "7 legs"),
        ("11", "8 arms"),
    ]
    return [
        pair(name, f"post {name[0]}", answer=f"It, {name}, has {fact}. Yes.").model_copy(
            update={"facts": [fact]}
        )
        for name, fact in rows
    ]


def probes(given: Sequence[Pair], paraphrased: Sequence[str] = (), **changes: Any) -> list[Probe]:
    texts = {name: f"{name} in other words" for name in paraphrased}
    return build_probes(given, texts, check_params(**changes))


def of_kind(found: Sequence[Probe], kind: Kind) -> dict[str, str]:
    return {probe.pair.id: probe.answer for probe in found if probe.kind == kind}


def test_a_question_gets_a_probe_of_each_kind() -> None:
    found = probes(pairs(), ["00"], items=1)
    assert {probe.pair.id for probe in found} == {"00"}
    assert [probe.kind for probe in found] == [
        *("paraphrase", "reordered", "same_post", "other_post", "refusal", "echo", "identity"),
        *("padding", "half", "negation", "numbers", "instruction"),
    ]
    named = probes(with_facts(), ["00"], items=1)
    assert {probe.kind for probe in named} == {
        kind for group in get_args(Kind) for kind in (get_args(group) or (group,))
    }
    answers = {probe.kind: probe.answer for probe in found}
    assert answers["paraphrase"] == "00 in other words"
    assert answers["reordered"] == "It has 8 parts. It is 00."
    assert answers["echo"] == "What is 00?"
    assert answers["identity"] == "It is 00. It has 8 parts."
    assert answers["half"] == "It is 00."
    assert answers["negation"] == "It is not 00. It has not 8 parts."
    assert answers["numbers"] == "It is 40. It has 3 parts."
    assert answers["refusal"] in REFUSALS
    assert answers["instruction"].startswith(f"{answers['other_post']}\n\n")
    assert answers["instruction"].removeprefix(f"{answers['other_post']}\n\n") in INSTRUCTIONS


def test_a_probe_is_asked_with_its_question_and_reference() -> None:
    (probe,) = (probe for probe in probes(pairs(), items=1) if probe.kind == "echo")
    assert probe.item == Item(probe.pair.question, probe.pair.answer, probe.pair.question)


def test_every_refusal_and_every_order_has_its_turn() -> None:
    found = probes(pairs(6, 6))
    assert set(of_kind(found, "refusal").values()) == set(REFUSALS)
    obeying = of_kind(found, "instruction").values()
    assert all(any(text.endswith(order) for text in obeying) for order in INSTRUCTIONS)


def test_foreign_answers_come_from_the_post_they_are_said_to_come_from() -> None:
    given = pairs()
    found = probes(given)
    post_of = {each.answer: each.post for each in given}
    for each in given:
        same, other = of_kind(found, "same_post")[each.id], of_kind(found, "other_post")[each.id]
        assert same != each.answer
        assert post_of[same] == each.post
        assert post_of[other] != each.post


def test_what_says_the_same_facts_is_another_wording_and_no_wrong_answer() -> None:
    found = probes(with_facts())
    assert of_kind(found, "reworded") == {
        "00": "It, 01, has 4 legs. Yes.",
        "01": "It, 00, has 4 legs. Yes.",
    }
    assert of_kind(found, "same_post")["00"] == "It, 02, has 5 arms. Yes."


def test_another_value_is_of_the_same_kind_and_of_another_post() -> None:
    found = of_kind(probes(with_facts()), "other_value")
    assert found["00"] == "It, 00, has 7 legs. Yes."
    assert found["02"] == "It, 02, has 8 arms. Yes."
    assert found["10"] == "It, 10, has 4 legs. Yes."


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        pytest.param([pair("a", "p"), pair("b", "q")], "same_post", id="alone in its post"),
        pytest.param([pair("a", None), pair("b", None)], "same_post", id="without a post"),
        pytest.param([pair("a", "p"), pair("b", "p")], "other_post", id="a single post"),
        pytest.param(
            [pair("a", "p"), pair("b", "q", question="what  is A?")],
            "other_post",
            id="same question",
        ),
        pytest.param(
            [pair("a", "p"), pair("b", "p", answer="It is a. it has 8 parts.")],
            "same_post",
            id="same answer",
        ),
        pytest.param([pair("a", answer="It is one.")], "numbers", id="no number"),
        pytest.param([pair("a", answer="It is one.")], "reordered", id="one sentence"),
        pytest.param([pair("a", answer="Rang 8. Klein.")], "negation", id="not English"),
        pytest.param([pair("a", answer="Eight")], "half", id="one word"),
        pytest.param([pair("a", "p")], "instruction", id="nothing to put it behind"),
    ],
)
def test_what_cannot_be_made_is_left_out(given: list[Pair], kind: Kind) -> None:
    found = probes(given)
    assert "a" not in of_kind(found, kind)
    assert of_kind(found, "identity")["a"]


@given(st.integers(0, 9), st.integers(1, 12), st.integers(0, 99))
def test_questions_with_a_paraphrase_come_first_and_their_number_is_bounded(
    paraphrased: int, items: int, seed: int
) -> None:
    names = [each.id for each in pairs()][:paraphrased]
    found = probes(pairs(), names, items=items, seed=seed)
    asked = {probe.pair.id for probe in found}
    assert len(asked) == min(items, 9)
    assert len(asked & set(names)) == min(items, paraphrased)
    assert set(of_kind(found, "paraphrase")) == asked & set(names)


@given(st.randoms(use_true_random=False))
def test_the_order_of_the_pairs_changes_no_probe(random: Random) -> None:
    shuffled = random.sample(pairs(), 9)
    assert probes(shuffled, ["11"], items=5) == probes(pairs(), ["11"], items=5)


def test_another_seed_chooses_other_questions_and_answers() -> None:
    first, second = (probes(pairs(6, 6), items=5, seed=seed) for seed in (7, 8))
    assert of_kind(first, "identity") != of_kind(second, "identity")
    both = [of_kind(probes(pairs(6, 6), seed=seed), "other_post") for seed in (7, 8)]
    assert both[0] != both[1]


def paraphrase(question: str, text: str = "In other words.") -> Paraphrase:
    return Paraphrase(question=question, paraphrase=text)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([paraphrase("What is a?")], {"a": "In other words."}, id="the question"),
        pytest.param([paraphrase(" WHAT is\na? ")], {"a": "In other words."}, id="folded"),
        pytest.param([paraphrase("What is c?")], {}, id="no such question"),
        pytest.param([paraphrase("What is b?")], {}, id="a question that two pairs have"),
        pytest.param(
            [paraphrase("What is a?", "first"), paraphrase("What is a?", "second")],
            {"a": "first"},
            id="two of one question",
        ),
        pytest.param([], {}, id="no paraphrases"),
    ],
)
def test_paraphrases_are_matched_by_the_question(
    rows: list[Paraphrase], expected: dict[str, str]
) -> None:
    given = [pair("a"), pair("b"), pair("b2", "q", question="What is b?")]
    assert match(rows, given) == expected


def test_an_empty_paraphrase_is_no_paraphrase() -> None:
    with pytest.raises(ValueError, match="at least 1 character"):
        paraphrase("What is a?", "  ")
