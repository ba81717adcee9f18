import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blogtune.training.schedule import learning_rate
from tests import tiny

# By hand, for a rate of 1, 20 steps of warmup and 120 in all: half a cosine over 100 steps.
COSINE = {1: 0.05, 10: 0.5, 20: 1.0, 21: 1.0, 46: 0.8535534, 71: 0.5, 96: 0.1464466, 120: 0.0002467}
CONSTANT = {1: 0.05, 10: 0.5, 20: 1.0, 21: 1.0, 71: 1.0, 120: 1.0}


@pytest.mark.parametrize(
    ("schedule", "iteration", "rate"),
    [
        pytest.param(name, iteration, rate, id=f"{name} {iteration}")
        for name, rates in (("cosine", COSINE), ("constant", CONSTANT))
        for iteration, rate in rates.items()
    ],
)
def test_the_rate_is_the_one_worked_out_by_hand(schedule: str, iteration: int, rate: float) -> None:
    params = tiny.train_params(
        schedule=schedule, iterations=120, warmup_iterations=20, learning_rate=1.0
    )
    assert learning_rate(params, iteration) == pytest.approx(rate, abs=1e-7)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_without_warmup_the_first_step_has_the_full_rate(schedule: str) -> None:
    params = tiny.train_params(schedule=schedule, warmup_iterations=0, learning_rate=1e-3)
    assert learning_rate(params, 1) == 1e-3


@given(iterations=st.integers(2, 500), data=st.data())
def test_the_rate_rises_to_the_highest_and_then_falls_above_0(
    iterations: int, data: st.DataObject
) -> None:
    warmup = data.draw(st.integers(0, iterations - 1))
    params = tiny.train_params(iterations=iterations, warmup_iterations=warmup)
    rates = [learning_rate(params, i) for i in range(1, iterations + 1)]
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert math.isclose(max(rates), params.learning_rate)
    assert min(rates) > 0
