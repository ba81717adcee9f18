from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blogtune.common.errors import UserError
from blogtune.common.params import read_params
from blogtune.common.records import Answer, Judgement, Second
from blogtune.judging.embedding import EmbeddingJudge
from blogtune.judging.judge import check_coverage, judge_answers, open_judge
from blogtune.judging.params import JudgeParams
from blogtune.judging.protocol import Item, Judge, Verdict
from tests.judging.test_encoder import minilm

ROOT = Path(__file__).parents[2]
COMMITTED = read_params("judge", JudgeParams, ROOT / "params.yaml")
POSTS = ("p", "q", "r")


class Ruled(Judge):
    """Scores by a rule, and remembers what it was asked."""

    method = "rule"

    def __init__(self, rule: Callable[[Item], Verdict]) -> None:
        self.rule = rule
        self.asked: list[Item] = []

    def judge(self, items: Sequence[Item]) -> Iterator[Verdict]:
        for item in items:
            self.asked.append(item)
            yield self.rule(item)


def length_rule(item: Item) -> Verdict:
    """Another score for each reference, so that a mix-up shows."""
    return Verdict(similarity=1 / (1 + len(item.reference)), partial_similarity=-0.25)


def params(other_references: int = 2, seed: int = 7) -> JudgeParams:
    """The committed section with these changes."""
    return COMMITTED.model_copy(update={"other_references": other_references, "seed": seed})


def answer(name: str, text: str = "An answer.", **changes: Any) -> Answer:
    values: dict[str, Any] = {
        "post": "p",
        "question": f"Question {name}?",
        "reference": f"reference {name}",
        "model": "base",
        "stop": "end",
        "tokens": 3,
    }
    return Answer(id=name, answer=text, **{**values, **changes})


def answers(count: int = 9) -> list[Answer]:
    """Three questions on each of three posts, each with a reference of its own length."""
    return [
        answer(f"{row}", post=POSTS[row % 3], reference=f"{POSTS[row % 3]}: " + "x" * row)
        for row in range(count)
    ]


def judged(given: Sequence[Answer], judge: Judge, **changes: Any) -> list[Judgement]:
    return list(judge_answers(given, judge, params(**changes)))


def test_each_answer_is_judged_against_its_own_reference_first() -> None:
    judge = Ruled(length_rule)
    judgements = judged(answers(), judge)
    assert [judgement.answer for judgement in judgements] == answers()
    for judgement in judgements:
        expected = 1 / (1 + len(judgement.answer.reference))
        assert judgement.similarity == pytest.approx(expected, abs=1e-6)
        assert (judgement.partial_similarity, judgement.method) == (-0.25, "rule")
        assert judgement.reason is None
    assert judge.asked[0] == Item("Question 0?", "p: ", "An answer.")


def test_an_empty_answer_scores_0_and_asks_no_judge() -> None:
    judge = Ruled(length_rule)
    given = [answer("a"), answer("b", "", post="q"), answer("c", post="r")]
    _, empty, last = judged(given, judge)
    assert (empty.similarity, empty.partial_similarity, empty.other_references) == (0, 0, 0)
    assert (empty.reason, empty.truncated) == ("empty answer", False)
    assert last.similarity == pytest.approx(1 / 12, abs=1e-6)
    assert all(item.answer for item in judge.asked)
    assert not any(item.question == "Question b?" for item in judge.asked)


def test_what_the_judge_cannot_score_stays_in_place_with_the_reason() -> None:
    def rule(item: Item) -> Verdict:
        failed = "timeout after 60 s" if item.question == "Question 4?" else None
        return Verdict(None, reason=failed) if failed else length_rule(item)

    judgements = judged(answers(), Ruled(rule))
    unscored = [judgement for judgement in judgements if judgement.similarity is None]
    assert [judgement.answer.id for judgement in unscored] == ["4"]
    assert unscored[0].reason == "timeout after 60 s"
    assert (unscored[0].partial_similarity, unscored[0].other_references) == (None, None)
    assert [judgement.answer for judgement in judgements] == answers()


def test_elsewhere_is_the_mean_of_what_was_scored_there() -> None:
    def rule(item: Item) -> Verdict:
        scores = {"p": 0.9, "q": 0.2, "r": None}
        return Verdict(scores[item.reference[0]], reason="no digit")

    judgements = judged(answers(), Ruled(rule), other_references=6)
    assert [judgement.other_references for judgement in judgements[:3]] == [0.2, 0.9, 0.55]
    assert judgements[0].similarity == 0.9


def test_only_the_own_reference_decides_whether_an_answer_was_read_whole() -> None:
    def rule(item: Item) -> Verdict:
        return Verdict(0.5, truncated=item.reference.startswith("q"))

    judgements = judged(answers(), Ruled(rule), other_references=6)
    assert [judgement.truncated for judgement in judgements[:3]] == [False, True, False]


def asked_other_references(given: Sequence[Answer], **changes: Any) -> dict[str, list[str]]:
    """The references of other posts that each question's answer was judged against."""
    judge = Ruled(length_rule)
    judged(given, judge, **changes)
    references: dict[str, list[str]] = {answer.question: [] for answer in given}
    for item in judge.asked:
        references[item.question].append(item.reference)
    return {question: those[1:] for question, those in references.items()}


@given(
    posts=st.lists(st.sampled_from([*POSTS, None]), min_size=1, max_size=12),
    other_references=st.integers(0, 6),
    seed=st.integers(0, 99),
)
def test_other_references_come_from_other_posts(
    posts: list[str | None], other_references: int, seed: int
) -> None:
    given = [answer(f"{row}", post=post) for row, post in enumerate(posts)]
    # Without a post each question is its own.
    post_of = {a.reference: a.post or a.id for a in given}
    drawn = asked_other_references(given, other_references=other_references, seed=seed)
    for one in given:
        others = drawn[one.question]
        own = one.post or one.id
        available = [reference for reference, post in post_of.items() if post != own]
        assert len(others) == len(set(others)) == min(other_references, len(available))
        assert set(others) <= set(available)


@given(st.integers(0, 99))
def test_the_order_of_the_answers_changes_no_judgement(seed: int) -> None:
    given = answers()
    shuffled = Random(seed).sample(given, len(given))
    judgements = {j.answer.id: j for j in judged(given, Ruled(length_rule))}
    assert {j.answer.id: j for j in judged(shuffled, Ruled(length_rule))} == judgements


def test_another_models_answers_meet_the_same_references() -> None:
    others = [a.model_copy(update={"model": "fused", "answer": "Other."}) for a in answers()]
    assert asked_other_references(others) == asked_other_references(answers())


def test_a_reference_that_many_questions_share_is_drawn_once() -> None:
    given = [
        answer("0", post="p"),
        *(answer(f"{row}", post="q", reference="same") for row in range(1, 9)),
        answer("9", post="q", reference="other"),
    ]
    assert sorted(asked_other_references(given, other_references=9)["Question 0?"]) == [
        "other",
        "same",
    ]


def test_another_seed_draws_other_references() -> None:
    assert asked_other_references(answers(), seed=7) != asked_other_references(answers(), seed=8)


@pytest.mark.parametrize(
    "given",
    [pytest.param(answers(), id="none asked for"), pytest.param([answer("a")], id="one post")],
)
def test_without_other_references_elsewhere_is_unknown(given: list[Answer]) -> None:
    other_references = 0 if len(given) > 1 else 5
    judgements = judged(given, Ruled(length_rule), other_references=other_references)
    assert {judgement.other_references for judgement in judgements} == {None}


def test_scores_have_six_decimals() -> None:
    (judgement,) = judged([answer("a")], Ruled(lambda _: Verdict(1 / 3, -2 / 3)))
    assert (judgement.similarity, judgement.partial_similarity) == (0.333333, -0.666667)


def test_no_answers_give_no_judgements() -> None:
    assert judged([], Ruled(length_rule)) == []


def test_the_embedding_judge_fills_every_score() -> None:
    opened = open_judge(params(), minilm())
    assert isinstance(opened, EmbeddingJudge)
    for judgement in judged(answers(3), opened):
        assert None not in (
            judgement.similarity,
            judgement.partial_similarity,
            judgement.other_references,
        )
        assert judgement.method == "cosine"


def test_a_second_judge_is_asked_about_the_own_reference_only() -> None:
    first, second = Ruled(length_rule), Ruled(lambda _: Verdict(0.123456789))
    given = [answer("a"), answer("b", "", post="q"), answer("c", post="r")]
    judgements = list(judge_answers(given, first, params(), second))
    assert second.asked == [Item(a.question, a.reference, a.answer) for a in (given[0], given[2])]
    scored = Second(method="rule", similarity=0.123457, reason=None)
    empty = Second(method="rule", similarity=0.0, reason="empty answer")
    assert [judgement.second for judgement in judgements] == [scored, empty, scored]


def test_without_a_second_judge_there_is_no_second_verdict() -> None:
    assert {judgement.second for judgement in judged(answers(), Ruled(length_rule))} == {None}


def with_scores(
    first: Sequence[float | None], second: Sequence[float | None] = ()
) -> list[Judgement]:
    """One judgement for each score; what has none timed out."""
    scores = [*zip(first, second or [None] * len(first), strict=True)]
    verdicts = iter([Verdict(score, reason=None if score else "timeout") for score, _ in scores])
    others = iter([Verdict(score, reason=None if score else "HTTP 500") for _, score in scores])
    given = [answer(f"{row}") for row in range(len(scores))]
    judge = Ruled(lambda _: next(verdicts))
    other = Ruled(lambda _: next(others)) if second else None
    return list(judge_answers(given, judge, params(other_references=0), other))


def test_scores_below_the_wanted_coverage_fail_in_one_line() -> None:
    with pytest.raises(UserError) as caught:
        check_coverage("fused", with_scores([0.5, None, None, 0.5]), 0.75)
    assert str(caught.value) == (
        "fused: 2 of 4 answers have a score by judge, judge.min_coverage is 0.75 (timeout: 2); "
        "see to the judge, then run `dvc repro` again: only what is missing is asked"
    )


def test_a_second_judge_that_is_gone_fails_too() -> None:
    with pytest.raises(UserError, match=r"1 of 2 answers have a score by judge.second, .*500: 1"):
        check_coverage("base", with_scores([0.5, 0.5], [0.5, None]), 0.75)


@pytest.mark.parametrize(
    ("scores", "least"),
    [([0.5, None, None, 0.5], 0.5), ([None], 0.0), ([], 1.0), ([0.5], 1.0)],
)
def test_enough_scores_pass(scores: list[float | None], least: float) -> None:
    check_coverage("base", with_scores(scores), least)
