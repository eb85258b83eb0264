"""The gate's guards: a candidate that ranks better and answers worse is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.gate.guards import GUARDS
from deploy.gate.thresholds import default_thresholds
from deploy.gate.verdict import judge_candidate
from tests.deploy.evaluations import (
    CLEARLY_BETTER,
    GOOD,
    PROMPTS,
    RIGHT,
    WRONG,
    noisy_answers,
    pair,
    scores,
    with_answers,
)
from tuning.evaluation.answers import Opinions, PromptMeasures
from tuning.evaluation.evaluate import Evaluation
from tuning.evaluation.generic import Drift
from tuning.evaluation.roles import MODEL_ROLES
from tuning.evaluation.statistics import win_rate


@pytest.mark.parametrize(
    ("guard", "fault"),
    [
        ("length", {"tokens": 80}),
        ("unfinished", {"finished": False}),
        ("empty", {"empty": True}),
        ("repetition", {"repetition": 0.5}),
        ("refusal", {"refused": True}),
        ("language", {"language_kept": False}),
    ],
)
def test_a_candidate_that_ranks_better_and_answers_worse_is_refused(
    guard: str, fault: dict[str, object]
) -> None:
    assert judge_candidate(with_answers(CLEARLY_BETTER)).verdict == "better"
    report = judge_candidate(with_answers(CLEARLY_BETTER, **fault))
    assert [found.name for found in report.guards if found.refused] == [guard]
    assert report.verdict == "not better"
    assert report.reason.startswith("refused: the candidate ")
    assert f"({guard} " in report.reason


def chose_longer(times: int, share: float = 1.0) -> Evaluation:
    """30 pairs; in a share of them people chose the answer that is so many times as long."""
    longer, shorter = (100 * times, 100), (100, 100 * times)
    return Evaluation(
        tuple(
            pair(f"c{n}", RIGHT, (RIGHT, WRONG)[n % 2], chars=longer if n < 30 * share else shorter)
            for n in range(30)
        )
    )


@pytest.mark.parametrize(
    ("evidence", "tokens", "refused"),
    [
        (chose_longer(1), 80, True),  # twice the incumbent's 40, and nobody asked for it
        (chose_longer(3), 80, False),
        (chose_longer(3), 120, False),
        (chose_longer(3), 130, True),  # more than was asked for
        (chose_longer(3, share=0.5), 80, True),  # as many asked for the opposite
    ],
)
def test_answers_may_grow_as_far_as_people_chose_longer_ones(
    evidence: Evaluation, tokens: int, refused: bool
) -> None:
    report = judge_candidate(with_answers(evidence, tokens=tokens))
    assert [guard.name for guard in report.guards if guard.refused] == ["length"] * refused


def test_answers_without_an_end_are_refused_though_people_chose_longer_ones() -> None:
    report = judge_candidate(with_answers(chose_longer(3), finished=False))
    assert [guard.name for guard in report.guards if guard.refused] == ["unfinished"]


def test_a_candidate_that_loses_the_form_is_refused() -> None:
    """Only prompts that ask for one count: half of these do."""
    kept, lost = replace(GOOD, format_kept=True), replace(GOOD, format_kept=False)
    answers = [
        PromptMeasures(name, "list", {"candidate": lost, "incumbent": kept, "base": kept})
        if number % 2
        else PromptMeasures(name, None, dict.fromkeys(MODEL_ROLES, GOOD))
        for number, name in enumerate(PROMPTS)
    ]
    report = judge_candidate(replace(CLEARLY_BETTER, answers=tuple(answers)))
    (refused,) = [found for found in report.guards if found.refused]
    assert (refused.name, refused.harm.estimate, refused.items) == ("format", 1.0, 12)


@pytest.mark.parametrize(("kl", "verdict"), [(0.3, "better"), (3.0, "not better")])
def test_a_candidate_far_from_the_base_is_refused(kl: float, verdict: str) -> None:
    drift = tuple(
        Drift(name, 48, {"candidate": kl, "incumbent": 0.1, "base": 0.0}) for name in PROMPTS
    )
    assert judge_candidate(replace(CLEARLY_BETTER, drift=drift)).verdict == verdict


@pytest.mark.parametrize(("worse", "refused"), [(4, False), (5, True)])
def test_five_answers_of_24_that_became_bad_are_no_accident(worse: int, refused: bool) -> None:
    """k bad ones are all missed by a resample in ((24 - k) / 24)^24 of cases.

    That is 1.3% for four and 0.37% for five; a guard's tail has 5% / 9 = 0.56%.
    """
    assert default_thresholds().guards.false_alarms / len(GUARDS) == pytest.approx(0.0056, abs=1e-4)
    bad = with_answers(CLEARLY_BETTER, empty=True).answers[:worse]
    good = with_answers(CLEARLY_BETTER).answers[worse:]
    report = judge_candidate(replace(CLEARLY_BETTER, answers=(*bad, *good)))
    assert (report.verdict == "not better") is refused


@pytest.mark.integration
def test_answers_as_bad_as_the_incumbents_are_refused_seldom_and_never_found_better() -> None:
    """Of 40, two may be refused by chance (5%), and one by chance be better (2.5%)."""
    reports = [judge_candidate(noisy_answers(seed)) for seed in range(40)]
    assert sum(any(guard.refused for guard in report.guards) for report in reports) <= 2
    assert [report.verdict for report in reports].count("better") <= 2


def test_a_guard_speaks_even_where_pairs_are_too_few() -> None:
    few = scores([RIGHT] * 3, [WRONG] * 3)
    assert judge_candidate(with_answers(few)).verdict == "not enough data"
    assert judge_candidate(with_answers(few, empty=True)).verdict == "not better"


def test_a_guard_with_too_few_items_says_nothing() -> None:
    evidence = with_answers(CLEARLY_BETTER, empty=True)
    report = judge_candidate(replace(evidence, answers=evidence.answers[:7]))
    assert (report.verdict, report.guards) == ("better", ())


def test_the_ai_judges_win_rate_stands_beside_and_decides_nothing() -> None:
    report = judge_candidate(replace(CLEARLY_BETTER, opinions=Opinions(wins=0, ties=4, losses=20)))
    assert report.ai_win_rate == win_rate(0, 4, 20)
    assert report.verdict == "better"
