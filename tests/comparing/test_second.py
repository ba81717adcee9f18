import pytest

from blogtune.common.errors import UserError
from blogtune.common.records import Judgement, Second
from blogtune.statistics.clustered import paired_difference, rank_correlation, same_preference
from tests.comparing.build import compare, fitness, judged, params

BASE = [0.2, 0.3, 0.5, 0.7, 0.9, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]
BETTER = [score + 0.05 + 0.01 * (row % 3) for row, score in enumerate(BASE)]
# What the second judge says: it likes the fine-tuned answers less on every third question.
SECOND_BASE = [0.25, 0.5, 0.5, 0.75, 1.0, 0.5, 0.25, 0.5, 0.25, 0.5, 0.25, 0.5]
SECOND_BETTER = [
    score + (-0.25 if row % 3 == 0 else 0.0 if row % 3 == 1 else 0.25)
    for row, score in enumerate(SECOND_BASE)
]
POSTS = [f"p{row:03}" for row in range(len(BASE))]

Files = dict[str, list[Judgement]]


def twice_judged(missing: int = 0) -> Files:
    """Judgements with a second judge's, of which the first `missing` of each model lack a score."""
    given = {"base": SECOND_BASE, "finetuned": [min(1.0, each) for each in SECOND_BETTER]}
    files = judged(base=BASE, finetuned=BETTER)
    for name, rows in files.items():
        scores = given.get(name, [0.5] * len(rows))
        files[name] = [
            row.model_copy(update={"second": said(None if place < missing else score)})
            for place, (row, score) in enumerate(zip(rows, scores, strict=True))
        ]
    return files


def said(similarity: float | None) -> Second:
    reason = None if similarity is not None else "timeout"
    return Second(method="likert digit", similarity=similarity, reason=reason)


def test_a_second_judge_has_its_own_figures_for_every_model() -> None:
    metrics = compare(twice_judged(), set(), fitness(), params()).metrics["second"]
    assert metrics["method"] == "likert digit"
    own = {"mean", "median", "sd", "good", "poor", "coverage"}
    assert set(metrics) == {"method", "base", "finetuned", "fused", "echo", "agreement"}
    assert set(metrics["base"]) == set(metrics["echo"]) == own
    assert set(metrics["finetuned"]) == set(metrics["fused"]) == own | {"difference"}
    assert metrics["base"]["mean"] == pytest.approx(sum(SECOND_BASE) / 12, abs=1e-6)
    assert metrics["base"]["good"] == pytest.approx(2 / 12, abs=1e-6)


def test_its_differences_and_the_agreement_are_those_of_the_statistics() -> None:
    files = twice_judged()
    metrics = compare(files, set(), fitness(), params()).metrics["second"]
    theirs = [row.second.similarity for row in files["finetuned"] if row.second]
    difference = paired_difference(theirs, SECOND_BASE, POSTS, 0.95)
    spearman = rank_correlation(BASE + BETTER, SECOND_BASE + theirs, POSTS * 2, 0.95)
    changes = ([a - b for a, b in zip(new, old, strict=True)]
               for new, old in ((BETTER, BASE), (theirs, SECOND_BASE)))  # fmt: skip
    preference = same_preference(*changes, POSTS, 0.95)
    for name, expected in {
        "finetuned.difference": difference,
        "agreement.spearman": spearman,
        "agreement.same_preference": preference,
    }.items():
        section, key = name.split(".")
        assert expected is not None
        assert metrics[section][key] == {
            "mean": pytest.approx(expected.mean, abs=1e-6),
            "low": pytest.approx(expected.low, abs=1e-6),
            "high": pytest.approx(expected.high, abs=1e-6),
        }


def test_the_first_judge_decides() -> None:
    alone = compare(judged(base=BASE, finetuned=BETTER), set(), fitness(), params()).metrics
    beside = compare(twice_judged(), set(), fitness(), params()).metrics
    assert {key: value for key, value in beside.items() if key != "second"} == alone


def test_without_a_second_judge_nothing_is_said_of_one() -> None:
    assert "second" not in compare(judged(base=BASE), set(), fitness(), params()).metrics


def test_agreement_rests_on_what_both_judges_scored() -> None:
    files = twice_judged(missing=2)
    metrics = compare(files, set(), fitness(), params()).metrics["second"]
    theirs = [row.second.similarity for row in files["finetuned"] if row.second][2:]
    assert metrics["base"]["coverage"] == pytest.approx(10 / 12, abs=1e-6)
    spearman = rank_correlation(
        BASE[2:] + BETTER[2:], SECOND_BASE[2:] + theirs, POSTS[2:] * 2, 0.95
    )
    assert spearman is not None
    assert metrics["agreement"]["spearman"]["mean"] == pytest.approx(spearman.mean, abs=1e-6)


def test_a_second_judge_without_any_score_leaves_its_coverage() -> None:
    metrics = compare(twice_judged(missing=12), set(), fitness(), params()).metrics["second"]
    assert metrics["base"] == {"coverage": 0.0}
    assert "agreement" not in metrics


@pytest.mark.parametrize(
    ("method", "told"),
    [
        pytest.param(
            "unit number", "judged in two ways, likert digit and unit number", id="two ways"
        ),
        pytest.param(
            None, "judged in two ways, no second judge and likert digit", id="once with, once not"
        ),
    ],
)
def test_a_second_judge_of_two_kinds_is_refused(method: str | None, told: str) -> None:
    files = twice_judged()
    second = Second(method=method, similarity=0.5, reason=None) if method else None
    files["fused"] = [row.model_copy(update={"second": second}) for row in files["fused"]]
    with pytest.raises(UserError, match=told):
        compare(files, set(), fitness(), params())
