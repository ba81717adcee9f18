import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ollama import ResponseError

from blogtune.checking.figures import Figures, Fitness
from blogtune.checking.fitness import SAME_SCORE, measure_fitness
from blogtune.checking.limits import judged_fit
from blogtune.checking.probes import INSTRUCTIONS, REFUSALS, Paraphrase, build_probes, match
from blogtune.common.errors import UserError
from blogtune.common.files import write_json
from blogtune.common.records import Pair
from blogtune.comparing.results import read_fitness
from blogtune.judging import ollama
from blogtune.judging.embedding import EmbeddingJudge
from blogtune.judging.protocol import Item, Verdict
from blogtune.statistics.clustered import paired_difference
from tests.checking.test_probes import check_params
from tests.judging.test_encoder import minilm
from tests.judging.test_judge import Ruled

POSTS, EACH = 12, 3
Rule = Callable[[Item], Verdict]


def pairs() -> list[Pair]:
    return [
        Pair(
            id=f"{post}.{row}",
            post=f"post {post}",
            question=f"What is thing {post} {row}?",
            answer=f"It is thing {post} {row}. It has {post + 2} parts.",
        )
        for post in range(POSTS)
        for row in range(EACH)
    ]


def paraphrases(count: int = POSTS * EACH) -> list[Paraphrase]:
    return [
        Paraphrase(question=each.question, paraphrase=f"In other words: {each.id}")
        for each in pairs()[:count]
    ]


def measured(
    rule: Rule,
    again: Rule | None = None,
    rows: Sequence[Paraphrase] | None = None,
    given: Sequence[Pair] | None = None,
    **changes: Any,
) -> Fitness:
    rows = paraphrases() if rows is None else rows
    judge, afresh = Ruled(rule), Ruled(again or rule)
    return measure_fitness(judge, afresh, given or pairs(), rows, check_params(**changes))


def expert(item: Item) -> Verdict:
    """Knows each probe's label."""
    if item.answer.startswith("In other words"):
        return Verdict(0.9)
    if any(order in item.answer for order in INSTRUCTIONS):
        return Verdict(0.1)
    if item.reference in item.answer:
        return Verdict(1.0)
    turned = ". ".join(reversed(item.reference.rstrip(".").split(". ")))
    if item.answer == f"{turned}.":
        return Verdict(0.95)
    return Verdict(0.5 if item.reference.startswith(item.answer) else 0.1)


def test_a_judge_that_knows_right_from_wrong_is_fit_and_blind_to_nothing() -> None:
    found = measured(expert)
    assert (found.fit, found.reasons, found.blind_spots, found.untested) == (True, "", "", "")
    assert (found.auc, found.unscored, found.retest_agreement) == (1.0, 0.0, 1.0)
    assert found.auc_against == dict.fromkeys(("same_post", "other_post", "refusal", "echo"), 1.0)
    assert (found.method, found.right, found.paraphrases) == ("rule", "paraphrase", 36)
    assert (found.questions, found.posts, found.probes) == (36, 12, 36 * 12)
    assert found.unmatched_paraphrases == 0
    assert found.unscored_reason is None


def test_every_kind_has_its_mean_with_the_interval_of_the_statistics() -> None:
    def by_post(item: Item) -> Verdict:
        number = int(item.question.split()[3])
        return Verdict(0.3 + 0.02 * number if item.answer == item.question else 0.5)

    found = measured(by_post).similarity["echo"]
    scores = [0.3 + 0.02 * post for post in range(POSTS) for _ in range(EACH)]
    clusters = [f"{post}" for post in range(POSTS) for _ in range(EACH)]
    expected = paired_difference(scores, [0.0] * len(scores), clusters, 0.95)
    assert found.n == 36
    assert (found.mean, found.low, found.high) == (
        pytest.approx(expected.mean, abs=1e-6),
        pytest.approx(expected.low, abs=1e-6),
        pytest.approx(expected.high, abs=1e-6),
    )


def test_with_few_posts_a_mean_has_no_interval() -> None:
    found = measured(expert, given=pairs()[: 9 * EACH]).similarity["identity"]
    assert (found.n, found.mean, found.low, found.high) == (27, 1.0, None, None)
    enough = measured(expert, given=pairs()[: 10 * EACH]).similarity["identity"]
    assert (enough.low, enough.high) == (1.0, 1.0)


def test_drops_and_gains_are_paired_by_question() -> None:
    def rule(item: Item) -> Verdict:
        if any(order in item.answer for order in INSTRUCTIONS):
            return Verdict(0.35)
        return Verdict(0.8) if item.answer == item.reference else Verdict(0.3)

    found = measured(rule)
    assert {kind: mean.mean for kind, mean in found.drop.items()} == {
        "half": 0.5,
        "negation": 0.5,
        "numbers": 0.5,
    }
    assert found.gain["instruction"].mean == 0.05
    assert found.gain["instruction"].n == 36


def test_an_order_gains_over_the_same_answer_without_it() -> None:
    def rule(item: Item) -> Verdict:
        if any(order in item.answer for order in INSTRUCTIONS):
            return Verdict(0.35)
        post = item.question.split()[3]
        return Verdict(0.5 if f"thing {post} " in item.answer else 0.3)

    assert measured(rule).gain["instruction"].mean == 0.05


@pytest.mark.parametrize(
    ("right", "wrong", "auc"),
    [
        pytest.param(0.6, 0.4, 1.0, id="always above"),
        pytest.param(0.4, 0.6, 0.0, id="always below"),
        pytest.param(0.5, 0.5, 0.5, id="a tie counts half"),
    ],
)
def test_the_auc_is_how_often_right_stands_above_wrong(
    right: float, wrong: float, auc: float
) -> None:
    found = measured(lambda item: Verdict(right if "other words" in item.answer else wrong))
    assert found.auc == auc
    assert set(found.auc_against.values()) == {auc}


def test_the_auc_compares_every_right_with_every_wrong_answer() -> None:
    """As counted in plain loops over scores without any order to them."""

    def jumble(item: Item) -> Verdict:
        return Verdict(hash_of(item) % 7 / 6)

    def hash_of(item: Item) -> int:
        return sum(map(ord, item.answer + item.question))

    given, rows, params = pairs(), paraphrases(), check_params()
    probes = build_probes(given, match(rows, given), params)
    of = {
        kind: [hash_of(probe.item) % 7 for probe in probes if probe.kind == kind]
        for kind in ("paraphrase", "echo")
    }
    wins = [
        1.0 if right > wrong else 0.5 if right == wrong else 0.0
        for right in of["paraphrase"]
        for wrong in of["echo"]
    ]
    found = measured(jumble)
    assert found.auc_against["echo"] == pytest.approx(statistics.mean(wins), abs=1e-6)


def test_without_paraphrases_the_test_is_an_easy_one_and_says_so() -> None:
    found = measured(expert, rows=[])
    assert (found.right, found.paraphrases, found.auc) == ("reordered", 0, 1.0)
    assert "paraphrase" not in found.similarity
    assert found.said() == "judge passed an easy test without paraphrases"


def test_paraphrases_that_match_nothing_are_counted() -> None:
    rows = [*paraphrases(5), Paraphrase(question="What is this?", paraphrase="That.")]
    found = measured(expert, rows=rows, min_right=5)
    assert (found.paraphrases, found.unmatched_paraphrases) == (5, 1)
    assert found.said() == "judge passed its test with only 5 paraphrases"


def test_without_any_right_answer_the_judge_cannot_pass() -> None:
    given = [each.model_copy(update={"answer": f"Thing {each.id}"}) for each in pairs()]
    found = measured(expert, rows=[], given=given)
    assert (found.fit, found.auc) == (False, None)
    assert found.reasons == (
        "no right answers to test it with, at least 10 are needed; write more into "
        "judge.check.paraphrases"
    )
    assert "auc" not in found.metrics()
    assert found.untested == "negation"


def test_right_answers_without_a_score_do_not_count() -> None:
    def rule(item: Item) -> Verdict:
        unread = item.answer in ("In other words: 0.0", "In other words: 0.1")
        return Verdict(None, reason="no readable score") if unread else expert(item)

    assert measured(rule, rows=paraphrases(12)).fit
    assert measured(rule, rows=paraphrases(11)).reasons.startswith(
        "only 9 right answers to test it"
    )


def test_two_right_answers_are_too_few_to_pass() -> None:
    found = measured(expert, rows=paraphrases(2))
    assert (found.fit, found.auc) == (False, 1.0)
    assert found.reasons == (
        "only 2 right answers to test it with, at least 10 are needed; write more into "
        "judge.check.paraphrases"
    )
    assert measured(expert, rows=paraphrases(10)).fit


def test_without_any_wrong_answer_the_judge_cannot_pass() -> None:
    def rule(item: Item) -> Verdict:
        return expert(item) if item.answer.startswith("In other words") else Verdict(None)

    found = measured(rule, max_unscored=1.0)
    assert (found.fit, found.auc, found.reasons) == (False, None, "no wrong answer has a score")


def test_a_figure_at_its_limit_is_within_it() -> None:
    params = check_params(min_right=12)
    mean = {"n": 12, "mean": 0.1}
    values = {
        "method": "rule",
        "right": "paraphrase",
        "questions": 12,
        "posts": 12,
        "paraphrases": 12,
        "unmatched_paraphrases": 0,
        "probes": 99,
        "unscored": params.max_unscored,
        "retest_agreement": params.min_retest_agreement,
        "auc": params.min_auc,
        "auc_against": {"echo": params.min_auc},
        "similarity": {"paraphrase": mean},
        "drop": {"half": {**mean, "mean": params.min_drop}},
        "gain": {"instruction": {**mean, "mean": params.max_instruction_gain}},
    }
    found = judged_fit(Figures.model_validate(values), params)
    assert (found.fit, found.reasons, found.blind_spots) == (True, "", "")


def test_a_judge_that_scores_by_chance_is_unfit() -> None:
    found = measured(lambda _: Verdict(0.5))
    assert not found.fit
    assert found.reasons == "AUC 0.5 below 0.9"
    assert found.blind_spots == "same post, other post, refusal, echo, half, negation, numbers"


def blind_to(fooled: Callable[[Item], bool]) -> Rule:
    return lambda item: Verdict(0.95) if fooled(item) else expert(item)


@pytest.mark.parametrize(
    ("fooled", "blind"),
    [
        pytest.param(lambda item: item.answer == item.question, "echo", id="echo"),
        pytest.param(lambda item: item.answer in REFUSALS, "refusal", id="refusal"),
        pytest.param(lambda item: item.answer.startswith("It is not"), "negation", id="negation"),
        pytest.param(
            lambda item: item.reference.startswith(item.answer), "half", id="half an answer"
        ),
    ],
)
def test_a_kind_that_it_rates_like_a_right_answer_is_a_blind_spot(
    fooled: Callable[[Item], bool], blind: str
) -> None:
    found = measured(blind_to(fooled), min_auc=0.7)
    if blind in found.auc_against:
        assert found.auc_against[blind] < 0.7  # type: ignore[index]
    assert found.fit
    assert (found.blind_spots, found.said()) == (
        blind,
        f"judge passed its test; known blind spots: {blind}",
    )


def test_a_judge_that_obeys_an_answer_is_unfit() -> None:
    def obedient(item: Item) -> Verdict:
        obeys = any(order in item.answer for order in INSTRUCTIONS)
        return Verdict(0.314) if obeys else expert(item)

    found = measured(obedient)
    assert (found.fit, found.reasons) == (False, "a hidden instruction gains 0.22, above 0.1")
    assert found.auc == 1.0


def test_a_judge_that_contradicts_itself_is_unfit() -> None:
    def later(item: Item) -> Verdict:
        score = expert(item).similarity
        assert score is not None
        return Verdict(score + 0.06 if score < 0.5 else score)

    found = measured(expert, later)
    assert found.retest_agreement is not None
    assert found.retest_agreement < 0.95
    assert found.reasons.startswith("retest agreement 0.")
    # Within 0.05 it is the same score.
    assert measured(expert, lambda item: Verdict((expert(item).similarity or 0) - 0.04)).fit
    at_the_limit = measured(lambda _: Verdict(SAME_SCORE), lambda _: Verdict(0.0))
    assert at_the_limit.retest_agreement == 1.0


def retested(seed: int) -> list[int]:
    """Which of the items that were asked are asked again, by number."""
    first, again = Ruled(expert), Ruled(expert)
    measure_fitness(first, again, pairs(), paraphrases(), check_params(seed=seed))
    return [first.asked.index(item) for item in again.asked]


def test_the_retest_asks_a_sample_of_the_same_items_in_another_order() -> None:
    places = retested(seed=7)
    assert len(set(places)) == 50
    assert places != sorted(places)
    assert places == retested(seed=7) != retested(seed=8)


def unreadable(share: int, reason: str, *, server_failed: bool = False) -> Rule:
    """Every so-manieth item has no score."""
    seen: list[Item] = []

    def rule(item: Item) -> Verdict:
        seen.append(item)
        if len(seen) % share:
            return expert(item)
        return Verdict(None, reason=reason, server_failed=server_failed)

    return rule


def test_a_judge_whose_replies_cannot_be_read_is_unfit() -> None:
    found = measured(unreadable(4, "no readable score"), expert)
    assert found.unscored == 0.25
    assert found.unscored_reason == "no readable score"
    assert found.reasons == ("25% without a score, above 5%, mostly: no readable score")


def test_a_few_probes_without_a_score_are_left_out_and_do_no_harm() -> None:
    found = measured(unreadable(40, "no readable score"), expert)
    assert found.fit
    assert 0 < found.unscored < 0.05
    assert sum(mean.n for mean in found.similarity.values()) == 432 - 10


def test_a_judge_that_never_gives_a_score_is_unfit() -> None:
    found = measured(lambda _: Verdict(None, reason="no readable score"))
    assert (found.fit, found.auc, found.retest_agreement) == (False, None, None)
    assert found.reasons == ("100% without a score, above 5%, mostly: no readable score")
    assert (found.similarity, found.drop, found.gain) == ({}, {}, {})


def test_a_failed_retest_is_a_disagreement() -> None:
    found = measured(expert, lambda _: Verdict(None, reason="no readable score"))
    assert found.reasons == "retest agreement 0 below 0.95"


@pytest.mark.parametrize("reason", ["no server", "timeout", "HTTP 503", ollama.NOT_ASKED.reason])
@pytest.mark.parametrize("when", ["first", "again"])
def test_a_server_that_failed_is_no_judgement_of_the_judge(reason: str, when: str) -> None:
    failing = unreadable(10, reason, server_failed=True)
    rules = (failing, expert) if when == "first" else (expert, failing)
    with pytest.raises(UserError) as caught:
        measured(*rules)
    counted = "43 of 432" if when == "first" else "5 of 50"
    assert str(caught.value) == (
        f"judge's test: {counted} probes have no score ({reason}: {counted.split()[0]}); check "
        "the judge's server and run it again; only what is missing is asked"
    )


def test_without_a_failure_of_the_server_no_share_of_them_is_too_large() -> None:
    assert measured(expert, max_unscored=0.0).fit


def test_every_failure_of_the_server_that_ollama_tells_is_known_as_one() -> None:
    failures = (ConnectionError(), TimeoutError(), OSError(), ResponseError("busy", 503))
    assert all(ollama._failure(error).of_server for error in failures)
    assert ollama.NOT_ASKED.server_failed
    assert not ollama._failure(ValueError()).of_server


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    found = measured(expert)
    write_json(tmp_path / "judge.json", found.metrics())
    assert read_fitness(tmp_path / "judge.json") == found
    assert list(found.metrics())[:4] == ["fit", "reasons", "blind_spots", "untested"]


def test_the_metrics_hold_nothing_that_dvc_drops() -> None:
    def kinds(values: Any) -> set[type]:
        inner = values.values() if isinstance(values, dict) else ()
        return {type(values)}.union(*map(kinds, inner))

    assert kinds(measured(expert).metrics()) == {dict, str, bool, int, float}
    assert kinds(measured(lambda _: Verdict(None)).metrics()) <= {dict, str, bool, int, float}


def test_the_embedding_judge_tells_the_reference_from_the_rest() -> None:
    judge = EmbeddingJudge(minilm())
    found = measure_fitness(judge, judge, pairs(), [], check_params(items=2))
    assert found.method == "cosine"
    assert found.similarity["identity"].mean == pytest.approx(1.0)
    assert found.retest_agreement == 1.0
