import json
import math
import statistics
from collections.abc import Sequence
from typing import Any

import pytest

from blogtune.common.errors import UserError
from blogtune.common.records import Judgement
from blogtune.comparing.compare import Comparison
from blogtune.statistics.clustered import difference_at_equal_length, paired_difference
from tests.comparing.build import MODELS, compare, fitness, judged, judgement, params

BASE = [0.2, 0.3, 0.5, 0.7, 0.9, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]
BETTER = [score + 0.05 + 0.01 * (row % 3) for row, score in enumerate(BASE)]
POSTS = [f"p{row:03}" for row in range(len(BASE))]


def compared(
    near: Sequence[str] = (), changes: dict[str, Any] | None = None, **scores: Any
) -> Comparison:
    return compare(judged(**scores), set(near), fitness(), params(**(changes or {})))


def with_answers(model: str, scores: Sequence[float | None], **values: Any) -> list[Judgement]:
    return [judgement(f"{row:03}", model, score, **values) for row, score in enumerate(scores)]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys, as DVC shows them."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def test_a_models_own_figures_are_those_of_its_scores() -> None:
    found = compared(base=BASE).metrics["base"]
    assert found["mean"] == pytest.approx(statistics.mean(BASE), abs=1e-6)
    assert found["median"] == 0.4
    assert found["sd"] == pytest.approx(statistics.stdev(BASE), abs=1e-6)
    assert found["good"] == pytest.approx(2 / 12, abs=1e-6)  # 0.7 itself is good
    assert found["poor"] == pytest.approx(2 / 12, abs=1e-6)  # 0.3 itself is poor
    assert (found["coverage"], found["unscored"]) == (1.0, 0)
    assert found["partial_similarity"] == found["mean"]


VERDICT = {"outcome", "verdict"}


def test_the_names_of_the_metrics_are_stable() -> None:
    own = {"mean", "median", "sd", "good", "poor", "coverage", "partial_similarity", "empty", "cut"}
    spans = {f"{kind}.{end}" for kind in ("difference", "partial_similarity_difference")
             for end in ("mean", "low", "high")}  # fmt: skip
    more = {f"{kind}.{end}" for kind in ("difference_without_near_duplicates", "specific_gain")
            for end in ("mean", "low", "high")}  # fmt: skip
    found = flat(compared(base=BASE, finetuned=BETTER).metrics)
    general = {"questions", "posts", "near_duplicates", "confidence"}
    assert {key for key in found if "." not in key} == general
    for model, expected in {
        "base": own | {"unscored"},
        "echo": own | spans | {"unscored"},
        "fused": own | spans | more | {"unscored", "wins", "ties", "losses"} | VERDICT,
    }.items():
        keys = {key.partition(".")[2] for key in found if key.startswith(f"{model}.")}
        assert keys - {f"at_equal_length.{end}" for end in ("mean", "low", "high")} == expected


def test_metrics_are_numbers_and_texts_that_json_can_hold() -> None:
    found = compared(base=[*BASE[:-1], None], finetuned=BETTER).metrics
    assert {type(value) for value in flat(found).values()} <= {int, float, str}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_difference_is_paired_with_the_interval_of_the_statistics() -> None:
    expected = paired_difference(BETTER, BASE, POSTS, 0.95)
    found = compared(base=BASE, finetuned=BETTER).metrics["finetuned"]["difference"]
    assert found == {
        "mean": pytest.approx(expected.mean, abs=1e-6),
        "low": pytest.approx(expected.low, abs=1e-6),
        "high": pytest.approx(expected.high, abs=1e-6),
    }


def test_questions_of_one_post_are_clustered() -> None:
    files = judged(base=BASE)
    files["finetuned"] = with_answers("finetuned", BETTER, post="one")
    files["base"] = with_answers("base", BASE, post="one")
    found = compare(files, set(), fitness(), params()).metrics
    assert found["posts"] == 1
    assert "low" not in found["finetuned"]["difference"]
    assert found["finetuned"]["verdict"].startswith("this adapter: no verdict (1 post, at least 10")


def test_the_order_of_the_rows_does_not_matter() -> None:
    files = judged(base=BASE, finetuned=BETTER)
    turned = {**files, "finetuned": files["finetuned"][::-1], "baselines": files["baselines"][::-1]}
    first, second = (
        compare(files, set(), fitness(), params()),
        compare(turned, set(), fitness(), params()),
    )
    assert first.metrics == second.metrics
    assert first.means.to_csv() == second.means.to_csv()


def test_the_comparison_does_not_depend_on_the_candidate_and_the_similarity_does() -> None:
    found = {
        candidate: compared(base=BASE, finetuned=BETTER, changes={"candidate": candidate})
        for candidate in ("base", "finetuned", "fused")
    }
    assert found["base"].metrics == found["finetuned"].metrics == found["fused"].metrics
    for candidate, comparison in found.items():
        own = comparison.metrics[candidate]
        assert comparison.similarity == {key: own[key] for key in comparison.similarity}
        assert comparison.similarity.keys() == found["base"].similarity.keys()


def test_missing_scores_leave_the_pairs_and_bound_mean_and_difference() -> None:
    base, finetuned = [0.4, None, 0.4, 0.4], [0.5, 0.5, None, 0.6]
    found = compared(base=base, finetuned=finetuned).metrics
    assert found["base"]["coverage"] == 0.75
    assert found["base"]["unscored"] == 1
    assert (found["base"]["mean_low"], found["base"]["mean_high"]) == (0.3, 0.55)
    difference = found["finetuned"]["difference"]
    assert difference["mean"] == pytest.approx(0.15)  # of the two questions scored for both
    assert difference["mean_low"] == pytest.approx((0.1 + (0.5 - 1) + (0 - 0.4) + 0.2) / 4)
    assert difference["mean_high"] == pytest.approx((0.1 + (0.5 - 0) + (1 - 0.4) + 0.2) / 4)
    assert "mean_low" not in found["fused"]


def test_empty_and_cut_answers_are_counted() -> None:
    files = judged(base=BASE)
    files["base"][0] = judgement("000", "base", 0.0, text="", reason="empty answer")
    files["base"][1] = judgement("001", "base", 0.3, stop="length")
    files["baselines"] = with_answers("echo", BASE, stop="none")
    found = compare(files, set(), fitness(), params()).metrics
    assert (found["base"]["empty"], found["base"]["cut"]) == (1, 1)
    assert (found["echo"]["empty"], found["echo"]["cut"]) == (0, 0)
    assert (found["fused"]["empty"], found["fused"]["cut"]) == (0, 0)


def test_near_duplicates_are_counted_and_left_out_of_a_difference_of_its_own() -> None:
    near = ["000", "001", "an id of another split"]
    found = compared(near, base=[0.5] * 4, finetuned=[0.9, 0.9, 0.6, 0.6]).metrics
    assert found["near_duplicates"] == 2
    assert found["finetuned"]["difference"]["mean"] == 0.25
    assert found["finetuned"]["difference_without_near_duplicates"]["mean"] == 0.1


def test_where_all_are_near_duplicates_there_is_no_difference_without_them() -> None:
    found = compared(["000", "001"], base=[0.5, 0.5], finetuned=[0.9, 0.9]).metrics
    assert "difference_without_near_duplicates" not in found["finetuned"]


def test_the_specific_gain_is_what_other_references_do_not_gain() -> None:
    files = judged(base=[0.5] * 4)
    files["base"] = with_answers("base", [0.5] * 4, other_references=0.2)
    files["finetuned"] = with_answers("finetuned", [0.6, 0.7, 0.6, 0.7], other_references=0.25)
    gain = compare(files, set(), fitness(), params()).metrics["finetuned"]["specific_gain"]
    expected = paired_difference([0.1, 0.2, 0.1, 0.2], [0.05] * 4, list("abcd"), 0.95)
    assert gain["mean"] == pytest.approx(0.1)
    assert gain["low"] == pytest.approx(expected.low, abs=1e-6)


def test_without_other_references_there_is_no_specific_gain() -> None:
    files = {
        model: with_answers(model, BASE, other_references=None)
        for model in ("base", "finetuned", "fused")
    }
    assert "specific_gain" not in compare(files, set(), fitness(), params()).metrics["finetuned"]


def with_lengths(
    model: str, scores: Sequence[float], lengths: Sequence[int], **values: Any
) -> list[Judgement]:
    return [
        judgement(f"{row:03}", model, score, text="x" * length, **values)
        for row, (score, length) in enumerate(zip(scores, lengths, strict=True))
    ]


def test_the_difference_at_equal_length_is_taken_over_answers_that_say_something() -> None:
    base_lengths, lengths = [13, 26, 13, 26, 39, 13, 13], [10, 13, 20, 40, 5, 7, 0]
    scores = [0.5, 0.6, 0.5, 0.4, 0.7, 0.6, 0.0]
    files = judged(base=[0.5] * 7)
    files["base"] = with_lengths("base", [0.5] * 7, base_lengths)
    files["finetuned"] = with_lengths("finetuned", scores, lengths)
    # "the reference" has 13 characters.
    change = [
        abs(math.log(ours / 13)) - abs(math.log(theirs / 13))
        for ours, theirs in zip(lengths[:6], base_lengths[:6], strict=True)
    ]
    expected = difference_at_equal_length(scores[:6], [0.5] * 6, change, list("abcdef"), 0.95)
    assert expected is not None
    found = compare(files, set(), fitness(), params()).metrics["finetuned"]["at_equal_length"]
    assert found["mean"] == pytest.approx(expected.mean, abs=1e-6)
    assert found["high"] == pytest.approx(expected.high, abs=1e-6)


def test_an_empty_reference_has_no_length_to_compare() -> None:
    files = {model: with_answers(model, BASE, reference="") for model in MODELS[:3]}
    found = compare(files, set(), fitness(), params()).metrics["finetuned"]
    assert "at_equal_length" not in found


def test_a_difference_that_rounds_to_nothing_has_no_minus() -> None:
    found = compared(base=[0.5] * 12, finetuned=[0.5 - 1e-9] * 12).metrics
    assert str(found["finetuned"]["difference"]["mean"]) == "0.0"


def test_wins_ties_and_losses_add_up_to_the_questions() -> None:
    found = compared(base=[0.5] * 4, finetuned=[0.6, 0.5, 0.4, 0.9]).metrics["finetuned"]
    assert (found["wins"], found["ties"], found["losses"]) == (2, 1, 1)


@pytest.mark.parametrize(
    ("finetuned", "echo", "measured", "expected"),
    [
        pytest.param(BETTER, [0.9] * 12, True, "improved", id="two measures"),
        pytest.param(BETTER, [0.1] * 12, False, "improved", id="one measure, above the echo"),
        pytest.param(BETTER, [0.9] * 12, False, "no evidence (not above", id="below the echo"),
        pytest.param([score - 0.1 for score in BASE], [0.1] * 12, True, "worse", id="worse"),
        pytest.param(BASE, [0.1] * 12, True, "no evidence (similarity's interval", id="the same"),
    ],
)
def test_the_verdict_follows_the_figures(
    finetuned: list[float], echo: list[float], measured: bool, expected: str
) -> None:
    files = judged(base=BASE, finetuned=finetuned, echo=echo)
    if not measured:
        files = {
            name: [row.model_copy(update={"partial_similarity": None}) for row in rows]
            for name, rows in files.items()
        }
    found = compare(files, set(), fitness(), params()).metrics
    assert found["finetuned"]["verdict"].startswith(f"this adapter: {expected}")
    assert found["fused"]["verdict"].startswith("this adapter, fused: ")
    assert found["fused"]["verdict"].endswith("judged by cosine (judge passed its test)")


def test_the_verdict_rests_on_the_questions_scored_for_both() -> None:
    found = compared(base=BASE, finetuned=[*BETTER[:-1], None]).metrics
    assert ", 11 questions in 11 posts, " in found["finetuned"]["verdict"]


def one_measure(model: str, scores: Sequence[float | None]) -> list[Judgement]:
    return with_answers(model, scores, partial_similarity=None)


@pytest.mark.parametrize(
    ("echo", "expected"),
    [
        pytest.param(
            [*(score - 0.01 for score in BETTER[:-1]), 1.0], "improved", id="paired by question"
        ),
        pytest.param([], "no evidence (not above the echoed question)", id="no echo"),
    ],
)
def test_one_measure_must_lie_above_the_echo_of_the_same_questions(
    echo: list[float], expected: str
) -> None:
    files = {
        "base": one_measure("base", BASE),
        "finetuned": one_measure("finetuned", [*BETTER[:-1], None]),
        "fused": one_measure("fused", BASE),
        "baselines": one_measure("echo", echo),
    }
    found = compare(files, set(), fitness(), params()).metrics
    assert found["finetuned"]["verdict"].startswith(f"this adapter: {expected}")


def test_an_empty_answers_zero_is_no_measure_beyond_the_question() -> None:
    """An LLM judge has none, but an empty answer scores 0 in every respect without a judge."""
    files = {
        model: [
            *with_answers(model, BASE[:-1], partial_similarity=None),
            judgement("011", model, 0.0, text="", partial_similarity=0.0),
        ]
        for model in ("base", "finetuned", "fused")
    }
    found = compare(files, set(), fitness(), params())
    assert "partial_similarity" not in found.similarity
    assert "partial_similarity_difference" not in found.metrics["finetuned"]


def test_questions_without_a_post_count_as_their_own() -> None:
    files = {
        model: with_answers(model, scores, post=None)
        for model, scores in (("base", BASE), ("finetuned", BETTER), ("fused", BASE))
    }
    found = compare(files, set(), fitness(), params()).metrics
    assert found["posts"] == 12
    assert "none names its post: each counted as its own" in found["finetuned"]["verdict"]


def test_the_plot_has_one_row_a_model_because_dvc_stacks_what_stands_twice() -> None:
    found = compared(base=[0.5, None], finetuned=[0.6, 0.7], echo=[None, None]).means
    csv = found.to_csv(index=False, lineterminator="\n").splitlines()
    assert csv == ["model,similarity", "base,0.5", "finetuned,0.65", "fused,0.5"]


def test_the_biggest_changes_come_with_it() -> None:
    found = compared(base=BASE, finetuned=BETTER, changes={"examples": 1}).examples
    assert [change.kind for change in found] == ["best", "worst"]


def failing(**changes: Any) -> dict[str, list[Judgement]]:
    return {**judged(base=BASE), **changes}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param({}, "no judgements of base", id="nothing at all"),
        pytest.param(failing(fused=[]), "no judgements of fused", id="a model is missing"),
        pytest.param(
            failing(finetuned=with_answers("finetuned", BASE[1:])),
            "finetuned was judged on other questions than base",
            id="a question is missing",
        ),
        pytest.param(
            failing(baselines=with_answers("echo", BASE) + with_answers("echo", BASE[:1])),
            "echo was judged on other questions than base",
            id="a question stands twice",
        ),
        pytest.param(
            failing(fused=with_answers("fused", BASE, method="logprobs")),
            "judged in two ways, cosine and logprobs; delete",
            id="two ways of judging",
        ),
    ],
)
def test_judgements_that_do_not_go_together_are_refused(
    files: dict[str, list[Judgement]], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        compare(files, set(), fitness(), params())
    assert message in str(caught.value)
    assert "run `dvc repro`" in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_judge_that_failed_its_test_gives_figures_and_no_verdict() -> None:
    unfit = fitness(fit=False, reasons="AUC 0.52 below 0.9")
    found = compare(judged(base=BASE, finetuned=BETTER), set(), unfit, params())
    for model in ("finetuned", "fused"):
        assert "no verdict: the judge failed its test" in found.metrics[model]["verdict"]
    assert found.metrics["finetuned"]["difference"]["low"] > 0


def test_a_judge_tested_in_another_way_than_it_judged_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        compare(judged(base=BASE), set(), fitness(method="likert digit"), params())
    assert str(caught.value) == (
        "metrics/judge.json: the judge tested is likert digit, the answers were judged by cosine; "
        "run `dvc repro -f check_judge`"
    )


def test_a_baseline_without_scores_does_not_stop_the_comparison() -> None:
    found = compared(base=BASE, echo=[None] * 12).metrics["echo"]
    assert found["coverage"] == 0.0
    assert found["difference"].keys() == {"mean_low", "mean_high"}
