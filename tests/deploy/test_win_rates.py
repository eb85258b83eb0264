"""Intervals of means and of win rates, and verdicts on thumbs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

from deploy.gate.verdict import judge_candidate
from tests.deploy.evaluations import RIGHT, WRONG, scores, thumbs
from tuning.evaluation.evaluate import Evaluation
from tuning.evaluation.judgements import JudgementScores
from tuning.evaluation.statistics import Interval, clustered_mean, win_rate


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


@pytest.mark.parametrize(
    ("good", "bad", "verdict", "gain"),
    [(2.0, -1.0, "better", 0.5), (-1.0, 2.0, "not better", -0.5), (0.0, 0.0, "not better", 0.0)],
)
def test_thumbs_alone_decide_where_there_are_no_pairs(
    good: float, bad: float, verdict: str, gain: float
) -> None:
    report = judge_candidate(Evaluation((), judgements=thumbs(good, bad)))
    assert (report.verdict, report.gain.estimate) == (verdict, gain)
    assert (report.pairs, report.judgements, report.conversations) == (0, 120, 30)
    assert report.candidate_judgement_accuracy == 0.5 + gain
    assert report.incumbent_judgement_accuracy == 0.5


def test_few_thumbs_are_not_enough_data() -> None:
    report = judge_candidate(Evaluation((), judgements=thumbs(2.0, -1.0, conversations=2)))
    assert report.verdict == "not enough data"


def test_thumbs_of_one_kind_say_nothing() -> None:
    good = tuple(each for each in thumbs(2.0, -1.0) if each.label)
    report = judge_candidate(Evaluation((), judgements=good))
    assert (report.verdict, report.judgements) == ("not enough data", 0)
    assert report.candidate_judgement_accuracy is None


def test_pairs_and_thumbs_count_together() -> None:
    pairs = scores([WRONG] * 10, [RIGHT] * 10).pairs
    report = judge_candidate(Evaluation(pairs, judgements=thumbs(2.0, -1.0)))
    assert report.gain.estimate == pytest.approx((10 * -1.0 + 120 * 0.5) / 130)
    assert report.conversations == 40


def test_votes_that_are_the_wrong_way_round_by_half_promote_nothing() -> None:
    """Where thumbs and rewards have nothing to do with each other, no gain is shown."""
    chance = np.random.default_rng(0)
    noise = tuple(
        JudgementScores(
            f"t{number}",
            bool(chance.integers(2)),
            {"candidate": float(chance.normal()), "incumbent": 0.0, "base": 0.0},
        )
        for number in range(200)
    )
    report = judge_candidate(Evaluation((), judgements=noise))
    assert report.verdict == "not better"
    assert abs(report.gain.estimate) < 0.1
