from collections.abc import Iterator, Sequence

import pytest

from blogtune.common.errors import UserError
from blogtune.common.records import Answer
from blogtune.exporting.export import closing
from blogtune.exporting.serving_gap import serving_gap
from blogtune.judging.protocol import Item, Verdict
from tests.exporting.build import export_params, judging


class ByLength:
    """A judge whose score is a tenth of the answer's length; none for a question mark."""

    method = "length"

    def judge(self, items: Sequence[Item]) -> Iterator[Verdict]:
        for item in items:
            score = None if item.answer == "?" else len(item.answer) / 10
            yield Verdict(score, reason=None if score is not None else "unreadable")


def answers(model: str, *texts: str) -> list[Answer]:
    return [
        Answer(
            id=f"q{row}",
            post=f"p{row}",
            question="Why?",
            reference="So.",
            model=model,
            answer=text,
            stop="end",
            tokens=1,
        )
        for row, text in enumerate(texts)
    ]


def test_the_serving_gap_is_paired_with_the_fused_models_answers() -> None:
    served, fused = answers("served", "aaaa", "aa", "?"), answers("fused", "aa", "aa", "aa")
    found = serving_gap(served, fused, ByLength(), judging(), export_params())
    assert (found["questions"], found["scored"]) == (3, 2)
    assert (found["mean"], found["fused_mean"]) == (0.3, 0.2)
    assert found["identical_answers"] == pytest.approx(1 / 3, abs=1e-6)
    # Differences 0.2 and 0, two posts: standard error 0.1, and t of 90% with 1 degree is 6.314.
    assert found["difference"]["mean"] == pytest.approx(0.1)
    assert found["difference"]["high"] == pytest.approx(0.1 + 6.313752 * 0.1, abs=1e-5)
    assert found["equivalent"] is False


def test_the_same_answers_are_equivalent() -> None:
    same = answers("served", "aaaa", "aa", "a")
    found = serving_gap(
        same, answers("fused", "aaaa", "aa", "a"), ByLength(), judging(), export_params()
    )
    assert found["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert found["equivalent"] is True
    told = {**found, "name": "b", "quantization": "F16", "top1_agreement": 1.0, "positions": 9}
    assert "equivalent within 0.02" in closing(told, export_params())
    assert closing(told, export_params(folder="gguf")).endswith("files: models/export")


def test_one_post_shows_no_equivalence() -> None:
    served = [answer.model_copy(update={"post": "p"}) for answer in answers("served", "a", "aa")]
    found = serving_gap(served, answers("fused", "a", "aa"), ByLength(), judging(), export_params())
    assert (found["equivalent"], found["difference"]) == (False, {"mean": 0.0})


def test_nothing_scored_is_an_error() -> None:
    with pytest.raises(UserError, match="no question has a score for both models"):
        serving_gap(answers("s", "?"), answers("f", "a"), ByLength(), judging(), export_params())
