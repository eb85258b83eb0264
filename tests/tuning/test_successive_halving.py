"""Successive halving, on losses that are known."""

from __future__ import annotations

from math import inf, nan

import pytest

from tuning.successive_halving import geometric_rates, halve, rungs

RATES = [1e-5, 2e-5, 4e-5, 8e-5]


def test_rates_rise_by_the_same_multiple_from_the_lowest_to_the_highest() -> None:
    assert geometric_rates(2.5e-5, 2e-4, 4) == [2.5e-5, 5e-5, 1e-4, 2e-4]
    assert geometric_rates(1e-5, 1e-3, 1) == [1e-3]


@pytest.mark.parametrize(
    ("count", "steps", "expected"),
    [(4, 24, [6, 12, 24]), (2, 24, [12, 24]), (1, 24, [24]), (4, 2, [1, 2]), (3, 8, [2, 4, 8])],
)
def test_each_rung_is_twice_as_long_as_the_one_before(
    count: int, steps: int, expected: list[int]
) -> None:
    assert rungs(count, steps) == expected


def test_the_better_half_goes_on_and_the_best_point_of_all_is_chosen() -> None:
    """The third rate is the best from the first rung on, and overfits after 12 steps."""
    losses = {
        (1e-5, 6): 0.69,
        (2e-5, 6): 0.66,
        (4e-5, 6): 0.60,
        (8e-5, 6): 0.70,
        (2e-5, 12): 0.62,
        (4e-5, 12): 0.55,
        (4e-5, 24): 0.58,
    }
    reached: list[tuple[float, int]] = []

    def reach(rate: float, steps: int) -> float:
        reached.append((rate, steps))
        return losses[rate, steps]

    found = halve(RATES, 24, reach, lambda loss: loss)
    assert reached == list(losses)
    assert (found.best.learning_rate, found.best.steps, found.best.loss) == (4e-5, 12, 0.55)


def test_the_whole_search_costs_twice_the_steps_of_one_run_of_four() -> None:
    done: dict[float, int] = {}

    def reach(rate: float, steps: int) -> float:
        done[rate] = steps
        return rate

    halve(RATES, 80, reach, lambda loss: loss)
    assert sum(done.values()) == 2 * 80


@pytest.mark.parametrize("bad", [nan, inf])
def test_a_run_whose_loss_is_not_a_number_is_dropped_and_never_chosen(bad: float) -> None:
    found = halve(RATES, 24, lambda rate, steps: bad if rate > 3e-5 else 0.6, lambda loss: loss)
    assert {p.learning_rate for p in found.points if p.steps > 6} == {1e-5, 2e-5}
    assert found.best.loss == 0.6


def test_one_rate_is_a_plain_run_that_is_scored() -> None:
    found = halve([1e-4], 10, lambda rate, steps: 0.5, lambda loss: loss)
    assert [(p.learning_rate, p.steps) for p in found.points] == [(1e-4, 10)]
