"""The figures of the forced choice: credits, chance, intervals, and what has nothing to choose."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blogtune.common.errors import UserError
from blogtune.common.files import write_json
from blogtune.models.loading import LoadedModel, load_model
from blogtune.probing.choice import Item, credit, items, knowledge
from blogtune.probing.distractors import Distractor
from blogtune.probing.likelihood import Score
from blogtune.probing.params import ProbeParams
from blogtune.probing.probe import Knowledge, probe
from blogtune.probing.results import NOT_MEASURED, read_knowledge, said
from blogtune.statistics.clustered import paired_difference
from tests import tiny
from tests.probing.test_distractors import blog

SAME = Distractor(kind="same_post", text="No.")
OTHER = Distractor(kind="other_value", text="Nine.")


def test_the_reference_must_be_above_all_others() -> None:
    assert credit(1.0, [0.5, 0.9]) == 1.0
    assert credit(1.0, [0.5, 1.1]) == 0.0


def test_those_that_tie_share_the_credit() -> None:
    assert credit(1.0, [0.5, 1.0]) == 0.5
    assert credit(1.0, [1.0, 1.0, 1.0]) == 0.25
    assert credit(1.0, [1.0, 1.1]) == 0.0


@given(st.integers(1, 6))
def test_one_who_knows_nothing_and_finds_all_alike_gets_what_chance_gives(others: int) -> None:
    assert credit(0.0, [0.0] * others) == 1 / (1 + others)


def scored(*gains: float, unasked: float = -3.0) -> list[Score | None]:
    return [Score(unasked + gain, unasked) for gain in gains]


def made(base: list[list[Score | None]], finetuned: list[list[Score | None]]) -> list[Item]:
    pairs = [
        tiny.pair(f"q{row}", "What?", "Eight.", f"post {row // 2}") for row in range(len(base))
    ]
    return items(pairs, [[SAME, OTHER]] * len(base), {"base": base, "finetuned": finetuned})


def test_the_figures_are_those_of_the_shares() -> None:
    base = [scored(1, 2, 0), scored(1, 0, 2), scored(2, 1, 0), scored(1, 2, 3)]
    better = [scored(2, 1, 0)] * 3 + [scored(1, 1, 0)]
    found = knowledge(made(base, better), questions=5)
    assert (found["questions"], found["without_distractors"]) == (5, 1)
    assert (found["all"]["chance"], found["same_post"]["chance"]) == (round(1 / 3, 6), 0.5)
    assert (found["all"]["distractors"], found["all"]["posts"]) == (8, 2)
    for kind, ours, theirs in (
        ("all", [0, 0, 1, 0], [1, 1, 1, 0.5]),
        ("same_post", [0, 1, 1, 0], [1, 1, 1, 0.5]),
        ("other_value", [1, 0, 1, 0], [1, 1, 1, 1]),
    ):
        assert found[kind]["base"]["mean"] == np.mean(ours)
        assert found[kind]["finetuned"]["mean"] == np.mean(theirs)
        posts = ["a", "a", "b", "b"]
        expected = paired_difference(np.array(theirs), np.array(ours), posts, 0.95)
        assert found[kind]["difference"] == {
            "mean": pytest.approx(expected.mean, abs=1e-6),
            "low": pytest.approx(expected.low, abs=1e-6),
            "high": pytest.approx(expected.high, abs=1e-6),
        }


def test_pmi_takes_out_what_an_empty_question_gives() -> None:
    """A reference in rare words is unlikely behind any question."""
    rare = [Score(-5.0, -9.0), Score(-3.0, -3.5), Score(-3.0, -3.5)]
    found = knowledge(made([rare], [rare]), questions=1)["all"]
    assert found["pmi"]["base"] == {"mean": 1.0}
    assert found["base"] == {"mean": 0.0}


def test_what_cannot_be_read_is_no_candidate_and_a_question_without_any_is_counted() -> None:
    without = [Score(-1.0, -2.0), None, None]
    unread = [None, *scored(1, 2)]
    half = [Score(-1.0, -2.0), None, Score(-2.0, -2.0)]
    found = made([without, unread, half], [without, unread, half])
    assert [(item.id, len(item.candidates)) for item in found] == [("q2", 2)]
    metrics = knowledge(found, questions=3)
    assert metrics["without_distractors"] == 2
    assert "same_post" not in metrics
    assert metrics["all"] == metrics["other_value"]
    assert "all" not in knowledge([], questions=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("model"))


def probed(folder: Path, dtype: mx.Dtype = mx.float32) -> Knowledge:
    def load() -> LoadedModel:
        return load_model(folder, dtype)

    pairs = blog()
    models = {"base": load, "finetuned": load}
    return probe(models, pairs, pairs, pairs, ProbeParams(seed=7, distractors=2))


def test_a_random_model_chooses_as_chance_does(folder: Path) -> None:
    found = probed(folder)
    metrics = found.metrics["all"]
    assert metrics["questions"] == len(found.items) == 20
    assert metrics["chance"] == 0.2
    assert metrics["base"]["low"] < metrics["chance"] < metrics["base"]["high"]
    assert metrics["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert found.metrics["empty_question"] == "template"
    assert found == probed(folder)


def test_an_item_has_each_candidate_with_each_model_s_scores(folder: Path) -> None:
    for item in probed(folder).items:
        kinds = [each.kind for each in item.candidates]
        assert kinds == ["reference", *["same_post"] * 2, *["other_value"] * 2]
        assert all({*each.scores} == {"base", "finetuned"} for each in item.candidates)
        assert Item.model_validate_json(item.model_dump_json()) == item


def test_without_questions_there_is_nothing_to_choose() -> None:
    with pytest.raises(UserError, match="no questions"):
        probe({}, [], [], [], ProbeParams(seed=7, distractors=2))


ALL: dict[str, object] = {
    "chance": 0.2,
    "base": {"mean": 0.31},
    "finetuned": {"mean": 0.452},
    "difference": {"mean": 0.142, "low": -0.05, "high": 0.23},
    "pmi": {
        "base": {"mean": 0.2},
        "finetuned": {"mean": 0.19},
        "difference": {"mean": -0.01, "low": -0.1, "high": 0.08},
    },
}
METRICS = {"questions": 150, "without_distractors": 0, "all": ALL}


def test_the_line_says_both_models_their_difference_and_chance() -> None:
    line = (
        "knows: forced choice base 31% -> fine-tuned 45% (+14% [-5%, +23%]; chance 20%); "
        "by PMI 20% -> 19% (-1% [-10%, +8%])"
    )
    assert said(METRICS) == line
    left_out = "; 3 of 150 questions had nothing to choose among"
    assert said(METRICS | {"without_distractors": 3}) == line + left_out
    alone = METRICS | {"all": ALL | {"difference": {"mean": 0.142}}}
    assert "(+14%; chance 20%)" in said(alone)


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    assert said(read_knowledge(tmp_path / "none.json")) == NOT_MEASURED
    assert said({"questions": 3, "without_distractors": 3}).startswith(f"{NOT_MEASURED}; 3 of 3")
    write_json(tmp_path / "knowledge.json", METRICS)
    assert read_knowledge(tmp_path / "knowledge.json") == METRICS
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        read_knowledge(tmp_path / "broken.json")
