"""The gate's verdicts on scores whose answer is known."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.integrate import quad

from deploy.gate import Interval, clustered_mean, judge, win_rate
from tuning.evaluate import PairScores

RIGHT, WRONG, TIED = (
    (-1.0, -2.0),
    (-2.0, -1.0),
    (-1.0, -1.0),
)  # (chosen, rejected) log-probabilities
Side = tuple[float, float]


def scores(
    candidate: Sequence[Side], incumbent: Sequence[Side], pairs_each: int = 1
) -> list[PairScores]:
    """One conversation per entry, of so many equal pairs."""
    return [
        PairScores(f"c{number}", *new, *old, chosen_chars=10, rejected_chars=10)
        for number, (new, old) in enumerate(zip(candidate, incumbent, strict=True))
        for _ in range(pairs_each)
    ]


def noise(seed: int) -> list[PairScores]:
    """Two adapters that are equally good: right on 60% of the pairs, each with luck of its own.

    40 conversations of 3 pairs; what a conversation is about helps or hurts all of its pairs.
    """
    draw = np.random.default_rng(seed)
    result = []
    for conversation in range(40):
        topic = draw.normal(0.25, 0.5, 2)  # for the candidate and for the incumbent
        for _ in range(3):
            new, old = topic + draw.normal(0, 0.8, 2)
            result.append(PairScores(f"c{conversation}", new, 0.0, old, 0.0, 10, 10))
    return result


# Verdicts


@pytest.mark.parametrize("seed", range(40))
def test_an_adapter_is_not_better_than_itself(seed: int) -> None:
    itself = [
        PairScores(s.conversation_id, *[s.candidate_chosen, s.candidate_rejected] * 2, 10, 10)
        for s in noise(seed)
    ]
    assert judge(itself).verdict == "not better"


def test_an_equally_good_adapter_is_rarely_called_better() -> None:
    """Of 40, a two-sided 95% interval lies above 0 once by chance; two are allowed."""
    verdicts = [judge(noise(seed)).verdict for seed in range(40)]
    assert verdicts.count("better") <= 2
    assert set(verdicts) <= {"better", "not better"}


def test_a_clearly_better_adapter_is_better() -> None:
    report = judge(scores([RIGHT] * 30, [RIGHT, WRONG] * 15))
    assert report.verdict == "better"
    assert (report.candidate_accuracy, report.incumbent_accuracy) == (1.0, 0.5)
    assert report.gain.estimate == 0.5
    assert 0 < report.gain.low < 0.5 < report.gain.high


def test_a_clearly_worse_adapter_is_not_better() -> None:
    report = judge(scores([RIGHT, WRONG] * 15, [RIGHT] * 30))
    assert report.verdict == "not better"
    assert report.gain.estimate == -0.5


def test_swapping_candidate_and_incumbent_flips_the_sign() -> None:
    new, old = [RIGHT] * 20 + [WRONG] * 10, [RIGHT, WRONG, TIED] * 10
    one, other = judge(scores(new, old)).gain, judge(scores(old, new)).gain
    assert one.estimate == pytest.approx(-other.estimate)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=0.01)
    assert judge(scores(new, old)).candidate_accuracy == judge(scores(old, new)).incumbent_accuracy


def test_a_tie_counts_as_half() -> None:
    report = judge(scores([TIED] * 10, [RIGHT] * 5 + [WRONG] * 5))
    assert (report.candidate_accuracy, report.incumbent_accuracy) == (0.5, 0.5)
    assert report.gain.estimate == 0.0


def test_few_conversations_are_not_enough_however_many_their_pairs() -> None:
    report = judge(scores([RIGHT] * 7, [WRONG] * 7, pairs_each=100))
    assert report.verdict == "not enough data"
    assert (report.pairs, report.conversations) == (700, 7)
    assert "7 held-out conversations; 8 are needed" in report.reason
    assert judge(scores([RIGHT] * 8, [WRONG] * 8)).verdict == "better"


def test_no_scores_at_all_are_not_enough() -> None:
    report = judge([])
    assert (report.verdict, report.pairs) == ("not enough data", 0)


def test_the_longer_answer_stands_beside_as_a_baseline() -> None:
    lengths = [(20, 10), (20, 10), (10, 10), (5, 10)]
    rows = [PairScores(f"c{i}", *RIGHT, *RIGHT, *length) for i, length in enumerate(lengths)]
    assert judge(rows).longer_wins_accuracy == (1 + 1 + 0.5 + 0) / 4


def test_a_report_can_be_stored_as_json() -> None:
    report = judge(scores([RIGHT] * 10, [WRONG, RIGHT] * 5))
    assert json.loads(json.dumps(report.as_dict()))["gain"]["estimate"] == 0.5


# The interval


def test_the_mean_is_over_values_not_over_clusters() -> None:
    assert clustered_mean([1, 1, 1, 0], ["a", "a", "a", "b"]).estimate == 0.75


def test_the_interval_of_a_fair_coin_is_the_textbook_one() -> None:
    """200 conversations of one value, half of them 1: 0.5 +- 1.96 * 0.5 / sqrt(200)."""
    found = clustered_mean([0.0, 1.0] * 100, [str(i) for i in range(200)])
    half_width = 1.96 * 0.5 / math.sqrt(200)
    assert found.estimate == 0.5
    assert (found.low, found.high) == pytest.approx((0.5 - half_width, 0.5 + half_width), abs=0.006)


def test_repeating_pairs_inside_conversations_adds_no_certainty() -> None:
    values = [0.0, 1.0, 1.0, 0.5, -1.0, 0.0, 1.0, 0.0, 1.0, -0.5, 1.0, 0.0]
    names = [str(i) for i in range(12)]
    once = clustered_mean(values, names)
    repeated = clustered_mean(values * 4, names * 4)
    as_if_independent = clustered_mean(values * 4, [str(i) for i in range(48)])
    assert repeated == once
    width = once.high - once.low  # of independent values it would shrink by sqrt(4)
    assert as_if_independent.high - as_if_independent.low == pytest.approx(width / 2, rel=0.15)


def test_one_conversation_has_no_interval() -> None:
    assert clustered_mean([1.0, 1.0], ["a", "a"]) == Interval(1.0, -1.0, 1.0)


# Win rates


def share_below(x: float, won: float, lost: float) -> float:
    """Share of the Jeffreys posterior Beta(won + 1/2, lost + 1/2) below x, by integration."""
    a, b = won + 0.5, lost + 0.5
    scale = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b))
    return float(quad(lambda t: scale * t ** (a - 1) * (1 - t) ** (b - 1), 0, x)[0])


@pytest.mark.parametrize(
    ("wins", "ties", "losses", "won", "lost"),
    [(37, 2, 1, 38, 2), (6, 0, 4, 6, 4), (3, 1, 8, 3.5, 8.5)],
)
def test_a_win_rate_has_two_and_a_half_percent_on_each_side(
    wins: int, ties: int, losses: int, won: float, lost: float
) -> None:
    rate = win_rate(wins, ties, losses)
    assert rate.estimate == won / (won + lost)
    assert share_below(rate.low, won, lost) == pytest.approx(0.025, abs=1e-6)
    assert share_below(rate.high, won, lost) == pytest.approx(0.975, abs=1e-6)


def test_ten_wins_of_ten_do_not_prove_certainty() -> None:
    rate = win_rate(10, 0, 0)
    assert (rate.estimate, rate.high) == (1.0, 1.0)
    assert share_below(rate.low, 10, 0) == pytest.approx(0.025, abs=1e-6)
    mirrored = win_rate(0, 0, 10)
    assert (mirrored.estimate, mirrored.low) == (0.0, 0.0)
    assert mirrored.high == pytest.approx(1 - rate.low)
