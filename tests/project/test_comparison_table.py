from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blogtune.comparing.examples import Change
from blogtune.project.comparison_table import (
    closing_table,
    markdown_table,
    plain,
    show_examples,
    side_by_side,
)
from tests.comparing.build import compare, fitness, judged, params

BASE = [0.2, 0.3, 0.5, 0.7, 0.9, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]
MODELS = ("base", "finetuned", "fused")
BETTER = [score + 0.05 + 0.01 * (row % 3) for row, score in enumerate(BASE)]

CLOSING = """
model                     mean  good  poor  partial               difference
----------------------------------------------------------------------------
base                     0.450   17%   17%    0.450                        -
finetuned                0.510   17%    8%    0.510  +0.060 [+0.055, +0.065]
fused                    0.500    0%    0%    0.500  +0.050 [-0.067, +0.167]
nearest training answer  0.500    0%    0%    0.500  +0.050 [-0.067, +0.167]

questions: 12; posts: 12; near-duplicates in training: 1; differences to base with 95% intervals
this adapter: improved; similarity +0.060 [+0.055, +0.065], partial similarity +0.060
  [+0.055, +0.065], 12 questions in 12 posts, judged by cosine (judge passed its test)
this adapter, fused: no evidence (similarity's interval [-0.067, +0.167] contains 0); similarity
  +0.050 [-0.067, +0.167], partial similarity +0.050 [-0.067, +0.167], 12 questions in 12 posts,
  judged by cosine (judge passed its test)
knows: not measured
"""


def metrics(**scores: Any) -> dict[str, Any]:
    found = compare(judged(**scores), {"000"}, fitness(), params()).metrics
    found["nearest_training_answer"] = found.pop("echo")  # the longest name
    return found


def example(**values: Any) -> Change:
    defaults: dict[str, Any] = {
        "kind": "best",
        "id": "4e16b02e",
        "question": "What is rank?",
        "reference": "The width.",
        "base": "A military grade.",
        "finetuned": "Its width.",
        "base_similarity": 0.31,
        "finetuned_similarity": 0.74,
    }
    return Change(**{**defaults, **values})


def test_the_closing_table_is_as_people_read_it() -> None:
    assert closing_table(metrics(base=BASE, finetuned=BETTER)) == CLOSING.strip()


def test_what_the_models_know_stands_below_the_verdicts() -> None:
    found = {
        "questions": 12,
        "without_distractors": 2,
        "all": {
            "chance": 0.25,
            "base": {"mean": 0.2},
            "finetuned": {"mean": 0.6},
            "difference": {"mean": 0.4, "low": 0.1, "high": 0.7},
            "pmi": {"base": {"mean": 0}, "finetuned": {"mean": 0}, "difference": {"mean": 0}},
        },
    }
    given = metrics(base=BASE, finetuned=BETTER)
    line = "knows: forced choice base 20% -> fine-tuned 60% (+40% [+10%, +70%]; chance 25%)"
    text = closing_table(given, found)
    assert line in text
    assert text.splitlines()[-1].endswith("2 of 12 questions had nothing to choose among")
    assert markdown_table(given, found).splitlines()[-1].startswith(line)


def test_the_markdown_table_has_both_differences() -> None:
    lines = markdown_table(metrics(base=BASE, finetuned=BETTER)).splitlines()
    assert lines[0].startswith("| model | mean similarity | good | poor | partial similarity |")
    interval = "+0.060 [+0.055, +0.065]"
    assert lines[3] == f"| finetuned | 0.510 | 17% | 8% | 0.510 | {interval} | {interval} |"
    assert len({line.count("|") for line in lines[:6]}) == 1
    assert lines[-5].startswith("this adapter: improved")


def test_the_facts_have_a_column_where_there_are_some() -> None:
    found = metrics(base=BASE, finetuned=BETTER)
    found["base"]["facts_right"] = {"mean": 0.02, "low": 0.0, "high": 0.04}
    found["finetuned"]["facts_right"] = {"mean": 0.81, "low": 0.76, "high": 0.86}
    found["finetuned"]["facts_right_difference"] = {"mean": 0.79, "low": 0.74, "high": 0.84}
    lines = closing_table(found).splitlines()
    assert lines[0].split()[-2:] == ["facts", "difference"]
    assert [line.split()[5] for line in lines[2:5]] == ["2%", "81%", "-"]
    markdown = markdown_table(found).splitlines()
    assert "| facts right |" in markdown[0]
    assert markdown[3].endswith(
        "| 81% | +0.060 [+0.055, +0.065] | +0.060 [+0.055, +0.065] | +0.790 [+0.740, +0.840] |"
    )


def test_two_comparisons_stand_side_by_side() -> None:
    better, same = metrics(base=BASE, finetuned=BETTER), metrics(base=BASE, finetuned=BASE)
    lines = side_by_side({"one": better, "other": same}).splitlines()
    assert lines[0].startswith("| model | one: similarity | one: difference to base | one: diff")
    interval, nothing = "+0.060 [+0.055, +0.065]", "+0.000 [+0.000, +0.000]"
    row = f"| finetuned | 0.510 | {interval} | {interval} | 0.450 | {nothing} | {nothing} |"
    assert lines[3] == row
    assert len({line.count("|") for line in lines[:6]}) == 1
    assert [line.split(": ")[0] for line in lines[7::2]] == ["one"] * 3 + ["other"] * 3


def second() -> dict[str, Any]:
    """What metrics/comparison.json says of a second judge."""
    models = {name: {"mean": mean} for name, mean in zip(MODELS, (0.3, 0.34, 0.35), strict=True)}
    for candidate, mean in (("finetuned", 0.04), ("fused", 0.05)):
        models[candidate]["difference"] = {"mean": mean, "low": -0.01, "high": 0.09}
    agreement = {
        "spearman": {"mean": 0.61, "low": 0.5, "high": 0.72},
        "same_preference": {"mean": 0.7, "low": 0.6, "high": 0.8},
    }
    nearest = {"nearest_training_answer": {"mean": 0.4}}
    return {"method": "likert logprobs", **models, **nearest, "agreement": agreement}


def test_a_second_judge_gets_a_column_and_a_line_of_its_own() -> None:
    found = metrics(base=BASE, finetuned=BETTER) | {"second": second()}
    lines = closing_table(found).splitlines()
    assert lines[0].split() == ["model", "mean", "second", "good", "poor", "partial", "difference"]
    assert [line.split()[1:3] for line in lines[2:5]] == [
        ["0.450", "0.300"],
        ["0.510", "0.340"],
        ["0.500", "0.350"],
    ]
    assert (
        "second judge (the first decides): likert logprobs; difference of finetuned +0.040 "
        "[-0.010, +0.090]; of fused +0.050 [-0.010, +0.090]; rank correlation with the first "
        "+0.610 [+0.500, +0.720]; both prefer the same model 0.700 [0.600, 0.800]"
    ) in " ".join(line.strip() for line in lines)
    markdown = markdown_table(found).splitlines()
    assert markdown[0].startswith("| model | mean similarity | second judge's | good |")
    assert markdown[2].startswith("| base | 0.450 | 0.300 | 17% |")
    assert max(map(len, closing_table(found).splitlines())) <= 100


def test_what_has_no_value_is_a_dash_and_missing_scores_are_named() -> None:
    found = metrics(base=BASE, finetuned=[*BETTER[:-1], None])
    for model in found.values():
        if isinstance(model, dict):
            model.pop("partial_similarity")
    lines = closing_table(found).splitlines()
    assert lines[2].split() == ["base", "0.450", "17%", "17%", "-", "-"]
    assert any("without a score: 1 of finetuned" in line for line in lines)


def test_a_difference_of_one_post_has_no_interval() -> None:
    found = metrics(base=BASE, finetuned=BETTER)
    found["finetuned"]["difference"] = {"mean": 0.06}
    assert closing_table(found).splitlines()[3].endswith("  +0.060")


def test_no_line_is_wider_than_a_hundred_columns() -> None:
    text = closing_table(metrics(base=BASE, finetuned=[None, *BETTER[1:]]))
    text += "\n" + show_examples([example(base="word " * 100, finetuned="x" * 500)])
    assert max(map(len, text.splitlines())) <= 100


def test_an_example_shows_question_reference_and_both_answers() -> None:
    text = show_examples([example(), example(kind="worst", finetuned="", id="b")])
    assert text.splitlines()[:9] == [
        "best change: +0.430 (0.310 to 0.740), 4e16b02e",
        "  question:",
        "    What is rank?",
        "  reference:",
        "    The width.",
        "  base:",
        "    A military grade.",
        "  fine-tuned:",
        "    Its width.",
    ]
    assert text.endswith("  fine-tuned:\n    (empty)")


def test_the_lines_of_an_answer_are_kept() -> None:
    assert "    1. One\n\n    2. Two\n" in show_examples([example(base="1. One\n\n2. Two")])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07", id="escapes"),
        pytest.param("a\rb\tc", "a b c", id="carriage return and tab"),
        pytest.param("a\u2028b\xa0c", "a b c", id="other white space"),
        pytest.param("\x9b31m", "\\x9b31m", id="an eight-bit escape"),
        pytest.param("a\u202eb", "a\\u202eb", id="text turned around"),
        pytest.param("Grüße, 日本 🙂\n", "Grüße, 日本 🙂\n", id="letters of the world"),
    ],
)
def test_nothing_in_a_text_drives_the_terminal(text: str, expected: str) -> None:
    assert plain(text) == expected


@given(st.text())
def test_plain_text_holds_only_what_can_be_seen_and_line_breaks(text: str) -> None:
    assert plain(text).replace("\n", "").isprintable()
    assert plain(plain(text)) == plain(text)
