"""The guards: faults roll a candidate back at once, the server's own faults do not."""

from __future__ import annotations

import random

import pytest

from deploy.canary.guards import AnswerFacts, standard_seconds, tripped
from deploy.canary.plan import Arm

FINE = AnswerFacts("live", seconds=2.0)


def candidates(*faults: bool, kind: str = "failed") -> list[AnswerFacts]:
    return [AnswerFacts("candidate", **{kind: each}) for each in faults]


@pytest.mark.parametrize(
    ("kind", "guard"), [("failed", "too many errors"), ("empty", "too many empty answers")]
)
def test_three_faults_in_a_row_are_enough(kind: str, guard: str) -> None:
    """Each multiplies the ratio by 0.2 / 0.02 = 10, up to the 1,000 that signal."""
    assert tripped([FINE] * 20 + candidates(True, True, True, kind=kind)) == guard
    assert tripped([FINE] * 20 + candidates(True, True, kind=kind)) is None


def test_a_fault_is_found_after_many_good_answers_as_soon_as_at_first() -> None:
    good = candidates(*[False] * 500)
    assert tripped(good + candidates(True, True, True)) == "too many errors"


def test_a_rare_fault_is_no_reason() -> None:
    """One in 50 is the limit: the 49 good ones, of 0.8 / 0.98 each, take back all of a bad one."""
    assert tripped(candidates(*[index % 50 == 0 for index in range(1_000)])) is None


def test_faults_of_the_server_are_not_the_candidates() -> None:
    both = [AnswerFacts(arm, failed=True) for arm in ("live", "candidate")] * 10
    assert tripped(both) is None
    assert tripped([*both[:2], *candidates(*[True] * 10)]) == "too many errors"


def timed(candidate: float, live: float) -> list[AnswerFacts]:
    return [AnswerFacts("candidate", seconds=candidate), AnswerFacts("live", seconds=live)]


def test_twelve_slow_answers_beside_quick_ones_are_enough() -> None:
    """Each multiplies the ratio by 0.9 / 0.5 = 1.8, and 1.8^11 = 643, 1.8^12 = 1,157."""
    assert tripped(timed(4.0, 1.9) * 12) == "too slow"
    assert tripped(timed(4.0, 1.9) * 11) is None


def test_a_little_slower_is_not_slow() -> None:
    assert tripped(timed(1.9, 1.0) * 100) is None


def test_a_busy_machine_makes_neither_slow() -> None:
    chance = random.Random(1)
    times = [timed(chance.expovariate(1), chance.expovariate(1)) for _ in range(300)]
    assert tripped([each for pair in times for each in pair]) is None


@pytest.mark.parametrize("arm", ["candidate", "live"])
def test_answers_without_times_say_nothing(arm: Arm) -> None:
    assert tripped([AnswerFacts(arm)] * 100) is None


def test_times_are_compared_at_one_length() -> None:
    """0.5 s to the first token, then 0.02 s each: 100 more take 2 s, however many there were."""
    assert standard_seconds(0.5, 0.5 + 0.02 * 9, 10) == pytest.approx(2.5)
    assert standard_seconds(0.5, 0.5 + 0.02 * 199, 200) == pytest.approx(2.5)
    assert standard_seconds(0.5, 0.5, 1) is None
    assert standard_seconds(0.5, 0.4, 10) is None
