"""The canary's test: fair bets, exact errors, and what the goals of its design come to."""

from __future__ import annotations

import random
from copy import deepcopy
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.canary.betting import VerdictBlock, bet, stake
from deploy.canary.decision import CanaryTest, stand
from deploy.canary.plan import CanaryPlan
from deploy.canary.simulation import Scenario, power_bound, simulate
from deploy.canary.verdicts import Verdict
from engine.errors import InvalidInput


def planned(**more: float) -> CanaryPlan:
    return CanaryPlan("sha256:new", None, "salt", **{"share": 0.5, **more})  # type: ignore[arg-type]


@given(
    progress=st.floats(0.001, 0.999),
    good=st.integers(1, 9),
    others=st.integers(1, 9),
    remaining=st.floats(0.1, 200),
    weight=st.sampled_from([1.0, 2.0]),
)
def test_a_bet_is_fair_whatever_the_capital_and_the_deadline(
    progress: float, good: int, others: int, remaining: float, weight: float
) -> None:
    """With chance m / (k + 1) of a good one, the mean of the capital after the block is the capital
    before; it never falls to 0 and never goes beyond the goal."""
    good = min(good, others)
    won, lost = (
        bet(progress, VerdictBlock(is_good, good, others, weight), remaining)
        for is_good in (True, False)
    )
    chance = good / (others + 1)
    assert chance * won + (1 - chance) * lost == pytest.approx(progress)
    assert 0 < lost < progress < won <= 1 + 1e-9


def test_a_block_of_one_kind_says_nothing() -> None:
    for good in (0, 2):
        assert bet(0.03, VerdictBlock(good > 0, good), remaining=10) == 0.03


def test_the_stake_is_the_derivative_of_the_chance_to_reach_the_goal() -> None:
    """g(s) = 2 (1 - Phi((b - s) / sqrt(R))) with b = 2, R = 1 is 0.0455; its derivative at s = 0 is
    2 phi(2) = 0.1080, and relative to g 2.373."""
    assert stake(0.0455003, 0.3, 1.0) == pytest.approx(2.373, abs=1e-3)
    assert stake(0.0455003, 0.3, 4.0) == pytest.approx(2.373 / 2, abs=1e-3)


@pytest.mark.parametrize("votes", [10, 14])
def test_the_probability_of_an_error_is_exact(votes: int) -> None:
    """All sequences of so many votes in turn, with both rates at one half: each has the same
    probability, so that the shares of those that promote and roll back are the errors."""
    plan = planned(votes=votes, promote_error=0.1, rollback_error=0.1)
    decided = {"promote": 0, "roll back": 0, "undecided": 0, "running": 0}
    for goods in product((False, True), repeat=votes):
        test = CanaryTest(plan)
        for index, is_good in enumerate(goods):
            test.add(Verdict("live" if index % 2 else "candidate", is_good))
        decided[test.decision] += 1
    assert 0 < decided["promote"] <= 0.1 * 2**votes
    assert 0 < decided["roll back"] <= 0.1 * 2**votes
    assert decided["running"] == 0


@given(st.lists(st.sampled_from(["both", "neither", "candidate", "live"]), max_size=60))
def test_both_capitals_are_fair_after_whatever_happened(past: list[str]) -> None:
    """Of a pair with one good verdict, either one may be it: the mean of what the capital becomes
    is what it was."""
    test = CanaryTest(planned(votes=200))
    for good in past:
        _add_pair(test, good)
    if test.decision != "running":
        return
    won, lost = deepcopy(test), deepcopy(test)
    _add_pair(won, "candidate")
    _add_pair(lost, "live")
    assert (won.better + lost.better) / 2 == pytest.approx(test.better)
    assert (won.worse + lost.worse) / 2 == pytest.approx(test.worse)


def _add_pair(test: CanaryTest, good: str) -> None:
    test.add(Verdict("live", good in ("live", "both")))
    test.add(Verdict("candidate", good in ("candidate", "both")))


def test_a_decision_is_the_same_however_seldom_anybody_looks() -> None:
    chance = random.Random(3)
    verdicts = [
        Verdict(arm, chance.random() < (0.7 if arm == "candidate" else 0.4))
        for arm in chance.choices(("candidate", "live"), k=600)
    ]
    decisions = [stand(planned(), verdicts[:n]).decision for n in range(1, 601)]
    first = decisions.index("promote")
    assert decisions[:first] == ["running"] * first
    assert decisions[first:] == ["promote"] * (600 - first)
    at_the_end = stand(planned(), verdicts)
    assert at_the_end.votes == first + 1  # what came later is not counted
    assert at_the_end.better == pytest.approx(at_the_end.better_needed)


def test_a_canary_ends_undecided_at_its_budget_of_votes_or_days() -> None:
    equal = [Verdict(arm, good) for good in (True, False) for arm in ("candidate", "live")] * 150
    assert stand(planned(), equal).decision == "undecided"
    assert stand(planned(), equal[:599]).decision == "running"
    assert stand(planned(), equal[:4], is_over=True).decision == "undecided"
    standing = stand(planned(), equal[:4])
    assert standing.votes == 4
    assert standing.arms["candidate"].good == standing.arms["candidate"].bad == 1


def test_ties_are_part_of_the_budget_and_say_nothing() -> None:
    ties = [Verdict("candidate", None, kind="comparison")] * 10
    standing = stand(planned(votes=10), ties)
    assert standing.decision == "undecided"
    assert standing.comparisons == 10
    assert standing.better == pytest.approx(1)


def test_a_plan_names_everything_that_is_wrong_with_it() -> None:
    with pytest.raises(InvalidInput, match=r"share .*votes.*days.*an error"):
        planned(share=0.6, votes=5, days=0, promote_error=0)
    with pytest.raises(InvalidInput, match="live already"):
        CanaryPlan("sha256:new", "sha256:new", "salt")


# The goals. 300 votes an arm; what is true of the releases, and how many of the votes compare.
# `test_the_goals_in_2000_runs` has the figures of docs/canary.md; these are the quick ones
QUICK = 150


def test_without_a_difference_wrong_decisions_are_rare() -> None:
    found = simulate(planned(), Scenario(0.5, 0.5, 0.5), runs=QUICK)
    assert found.promoted + found.rolled_back <= 0.05 + 3 * (0.05 * 0.95 / QUICK) ** 0.5
    assert found.undecided > 0.85


def test_a_clearly_better_candidate_is_promoted_and_a_clearly_worse_one_rolled_back() -> None:
    better = simulate(planned(), Scenario(0.7, 0.4), runs=QUICK)
    assert better.promoted > 0.95
    worse = simulate(planned(), Scenario(0.1, 0.5), runs=QUICK)
    assert worse.rolled_back == 1
    assert worse.median_votes < 100


def test_no_test_of_thumbs_alone_reaches_the_goals() -> None:
    """60% against 50% with 300 votes an arm and an error of 5%: a normal approximation has
    Phi(0.1 / sqrt(0.49 / 300) - 1.645) = Phi(0.829) = 0.80; the exact bound is just below. 30%
    against 50% with 30 votes an arm: Phi(0.2 / sqrt(0.46 / 30) - 1.645) = Phi(-0.03) = 0.49."""
    assert 0.78 < power_bound(0.6, 0.5, votes=600, error=0.05) < 0.80
    assert 0.45 < power_bound(0.3, 0.5, votes=60, error=0.05) < 0.50
    # And it bounds what the canary reaches with the same error
    assert power_bound(0.6, 0.5, votes=600, error=0.03) < 0.73


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("comparisons", "promoted", "votes"), [(0.0, 0.62, 160), (0.5, 0.76, 140), (1.0, 0.86, 125)]
)
def test_the_goals_in_2000_runs(comparisons: float, promoted: float, votes: float) -> None:
    equal = simulate(planned(), Scenario(0.5, 0.5, comparisons))
    assert equal.promoted + equal.rolled_back <= 0.05 + 2 * (0.05 * 0.95 / 2_000) ** 0.5
    better = simulate(planned(), Scenario(0.6, 0.5, comparisons))
    assert better.promoted > promoted
    worse = simulate(planned(), Scenario(0.3, 0.5, comparisons))
    assert worse.rolled_back > 0.97
    assert worse.median_votes < votes
