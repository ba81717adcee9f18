from itertools import chain

import pytest

from blogtune.comparing.examples import biggest_changes
from tests.comparing.build import judged


def kinds_and_ids(count: int, base: list[float | None], finetuned: list[float | None]):
    # Turned around: the order of the rows says nothing.
    rows = list(chain.from_iterable(judged(base=base, finetuned=finetuned).values()))[::-1]
    return [(change.kind, change.id) for change in biggest_changes(rows, count)]


@pytest.mark.parametrize(
    ("finetuned", "expected"),
    [
        pytest.param(
            [0.6, 0.1, 0.9, 0.4, 0.5],
            [("best", "002"), ("best", "000"), ("worst", "001"), ("worst", "003")],
            id="the middle is left out",
        ),
        pytest.param(
            [0.6, 0.1, 0.9],
            [("best", "002"), ("best", "000"), ("worst", "001")],
            id="none is both best and worst",
        ),
        pytest.param([0.4, None], [("best", "000")], id="an answer without a score"),
        pytest.param([0.6, 0.6], [("best", "000"), ("best", "001")], id="equal changes by id"),
    ],
)
def test_the_best_come_best_first_and_then_the_worst_worst_first(
    finetuned: list[float | None], expected: list[tuple[str, str]]
) -> None:
    assert kinds_and_ids(2, [0.5] * len(finetuned), finetuned) == expected


def test_an_example_holds_both_answers_and_scores() -> None:
    rows = list(chain.from_iterable(judged(base=[0.3], finetuned=[0.7]).values()))
    change = biggest_changes(rows, 1)[0]
    assert (change.question, change.reference) == ("question 000?", "the reference")
    assert (change.base, change.base_similarity) == ("base says 000", 0.3)
    assert (change.finetuned, change.finetuned_similarity) == ("finetuned says 000", 0.7)
    assert change.change == pytest.approx(0.4)
