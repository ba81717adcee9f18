from typing import Any

import pytest

from blogtune.checking.figures import Fitness
from blogtune.project.judge_table import markdown_judge_table, plain_judge_table
from tests.comparing.build import fitness

PLAIN = """
answer         label    n            similarity    AUC               drop or gain
---------------------------------------------------------------------------------
identity       right  100  1.000 [1.000, 1.000]      -                          -
paraphrase     right   70  0.683 [0.655, 0.711]      -                          -
half         spoiled  100  0.857 [0.845, 0.869]      -  drop 0.143 [0.131, 0.155]
same post      wrong  100  0.375 [0.340, 0.410]  0.940                          -
instruction    wrong    9                 0.174      -                 gain 0.011

judge: cosine; questions: 100; posts: 70; probes without a score: 0.0%; AUC of paraphrase against
  all wrong answers: 0.922; same score when asked again: 98%
judge passed its test; known blind spots: echo
"""


def mean(n: int, *values: float) -> dict[str, float]:
    return {"n": n, **dict(zip(("mean", "low", "high"), values, strict=False))}


def found(**changes: Any) -> Fitness:
    values = {
        "blind_spots": "echo",
        "auc": 0.922,
        "auc_against": {"same_post": 0.94},
        "retest_agreement": 0.98,
        "similarity": {
            "same_post": mean(100, 0.375, 0.34, 0.41),
            "paraphrase": mean(70, 0.683, 0.655, 0.711),
            "identity": mean(100, 1.0, 1.0, 1.0),
            "half": mean(100, 0.857, 0.845, 0.869),
            "instruction": mean(9, 0.174),
        },
        "drop": {"half": mean(100, 0.143, 0.131, 0.155)},
        "gain": {"instruction": mean(9, 0.011)},
    }
    return fitness(**{**values, **changes})


def test_the_table_goes_from_right_to_wrong() -> None:
    assert plain_judge_table(found()) == PLAIN.strip()


def test_the_markdown_table_says_the_same() -> None:
    lines = markdown_judge_table(found()).splitlines()
    assert lines[0] == "| answer | label | n | similarity | AUC | drop or gain |"
    assert lines[5] == "| same post | wrong | 100 | 0.375 [0.340, 0.410] | 0.940 | - |"
    assert lines[-1] == "judge passed its test; known blind spots: echo"


def test_how_much_of_the_references_the_judge_can_read_stands_with_its_limits() -> None:
    lines = markdown_judge_table(found(unknown_tokens=0.61, spelled_tokens=0.004)).splitlines()
    assert lines[-3].endswith(
        "of the references' tokens 61.0% are unknown to it (at most 5%) and 0.4% read as single "
        "letters (at most 30%)"
    )


def test_paraphrases_of_another_blog_are_told() -> None:
    table = markdown_judge_table(found(paraphrases=0, unmatched_paraphrases=70))
    assert "none of the 70 paraphrases belongs to a question of these data" in table
    some = markdown_judge_table(found(paraphrases=1, unmatched_paraphrases=69))
    assert "none of the" not in some
    assert "none of the" not in markdown_judge_table(found(paraphrases=0, unmatched_paraphrases=0))


def test_what_facts_right_sees_is_the_last_column() -> None:
    shares = {"identity": mean(90, 1.0), "half": mean(90, 0.15)}
    facts = {"fit": True, "auc": 0.979, "right": shares, "drop": {}}
    lines = plain_judge_table(found(facts=facts)).splitlines()
    assert lines[0].endswith("  facts right")
    assert [line.split()[-1] for line in lines[2:7]] == ["100%", "-", "15%", "-", "-"]
    assert "AUC by facts against another value: 0.979" in " ".join(" ".join(lines).split())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param(
            {"fit": False, "reasons": "AUC 0.5 below 0.9"},
            "the judge failed its test (AUC 0.5 below 0.9)",
            id="unfit",
        ),
        pytest.param(
            {"unmatched_paraphrases": 3}, "paraphrases that match no question: 3", id="unmatched"
        ),
        pytest.param({"unscored": 0.013}, "probes without a score: 1.3%", id="unscored"),
    ],
)
def test_what_is_amiss_is_said_below(changes: dict[str, Any], said: str) -> None:
    assert said in plain_judge_table(found(**changes))


def test_a_judge_without_any_score_has_no_rows() -> None:
    nothing = found(
        auc=None, auc_against={}, retest_agreement=None, similarity={}, drop={}, gain={}
    )
    lines = plain_judge_table(nothing).splitlines()
    assert lines[2] == ""
    assert "AUC of" not in lines[3]
    assert "asked again" not in lines[3]
