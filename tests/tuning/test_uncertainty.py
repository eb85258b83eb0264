"""Which two answers people are asked about: those between which the policy is least sure."""

from __future__ import annotations

import math

import pytest

from tuning.uncertainty import implicit_reward, least_sure, preference


def unlike(first: str, second: str) -> float:
    """How many letters differ, at least those that one has more."""
    return sum(a != b for a, b in zip(first.ljust(9), second.ljust(9), strict=True))


def test_the_implicit_reward_is_how_much_likelier_training_made_an_answer() -> None:
    """0.1 * (-10 - -14) = 0.4: the policy finds it e^4 times likelier than the reference."""
    assert implicit_reward(-10, -14) == pytest.approx(0.4)


@pytest.mark.parametrize(("first", "second"), [(0.4, 0.0), (3, -2), (0, 0), (-1e6, 1e6)])
def test_the_preference_is_the_sigmoid_of_the_difference(first: float, second: float) -> None:
    expected = 1 / (1 + math.exp(min(second - first, 700)))
    assert preference(first, second) == pytest.approx(expected)
    assert preference(first, second) + preference(second, first) == pytest.approx(1)


def test_the_two_with_the_closest_rewards_are_asked_about() -> None:
    found = least_sure([2.0, -1.0, 1.5, 0.0], ["aa", "bb", "cc", "dd"], unlike)
    assert found is not None
    assert found[:2] == (0, 2)
    assert found[2] == pytest.approx(1 / (1 + math.exp(-0.5)))


def test_where_nothing_was_learnt_the_two_that_differ_most_are_asked_about() -> None:
    assert least_sure([0, 0, 0], ["aaaa", "aaab", "bbbb"], unlike) == (0, 2, 0.5)


def test_answers_that_read_the_same_are_never_asked_about() -> None:
    assert least_sure([0, 0], ["same", "same"], unlike) is None
    assert least_sure([0, 0, 3], ["same", "same", "else"], unlike) == (0, 2, preference(0, 3))
    assert least_sure([], [], unlike) is None
