"""The gate's verdicts on evidence whose answer is known."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad

from deploy.gate.guards import GUARDS
from deploy.gate.thresholds import default_thresholds, read_thresholds
from deploy.gate.verdict import gate_report_of, judge_candidate, judge_document, win_rate
from engine.errors import InvalidInput
from engine.storage import folder_of
from tuning.evaluation.answers import (
    AnswerMeasures,
    EvaluationPrompt,
    Opinions,
    PromptMeasures,
    load_prompts,
)
from tuning.evaluation.evaluate import Evaluation
from tuning.evaluation.generic import Drift
from tuning.evaluation.judgements import JudgementScores
from tuning.evaluation.preferences import PairScores, Preference
from tuning.evaluation.report import write_report
from tuning.evaluation.roles import MODEL_ROLES, ModelRole
from tuning.evaluation.statistics import Interval, clustered_mean

Side = tuple[float, float]  # (chosen, rejected) log-probabilities
RIGHT, WRONG, TIED = (-1.0, -2.0), (-2.0, -1.0), (-1.0, -1.0)
GOOD = AnswerMeasures(
    tokens=40,
    finished=True,
    empty=False,
    repetition=0.0,
    refused=False,
    language_kept=True,
    format_kept=None,
)
PROMPTS = [prompt.id for prompt in load_prompts()]


def pair(
    conversation: str, new: Side, old: Side, *, gold: bool = False, chars: tuple[int, int] = (9, 9)
) -> PairScores:
    """One pair, whose sides the base model finds equally likely."""
    sides = {"candidate": new, "incumbent": old, "base": TIED}
    preferences: dict[ModelRole, Preference] = {
        role: Preference(*sides[role], *sides[role]) for role in MODEL_ROLES
    }
    return PairScores(conversation, gold, preferences, *chars)


def scores(candidate: Sequence[Side], incumbent: Sequence[Side], pairs_each: int = 1) -> Evaluation:
    """One conversation per entry, of so many equal pairs."""
    return Evaluation(
        tuple(
            pair(f"c{number}", new, old)
            for number, (new, old) in enumerate(zip(candidate, incumbent, strict=True))
            for _ in range(pairs_each)
        )
    )


def noise(seed: int) -> Evaluation:
    """Two adapters that are equally good: right on 60% of the pairs, each with luck of its own.

    40 conversations of 3 pairs; what a conversation is about helps or hurts all of its pairs. A
    quarter of the conversations are gold.
    """
    draw = np.random.default_rng(seed)
    pairs = []
    for conversation in range(40):
        topic = draw.normal(0.25, 0.5, 2)  # for the candidate and for the incumbent
        for _ in range(3):
            new, old = topic + draw.normal(0, 0.8, 2)
            gold = conversation % 4 == 0
            pairs.append(pair(f"c{conversation}", (new, 0.0), (old, 0.0), gold=gold))
    return Evaluation(tuple(pairs))


def with_answers(evidence: Evaluation, **candidate: Any) -> Evaluation:
    """Every prompt answered well by the incumbent, and by the candidate but for what is given."""
    measures: dict[ModelRole, AnswerMeasures] = dict.fromkeys(MODEL_ROLES, GOOD)
    bad: dict[ModelRole, AnswerMeasures] = {**measures, "candidate": replace(GOOD, **candidate)}
    return replace(evidence, answers=tuple(PromptMeasures(name, None, bad) for name in PROMPTS))


def noisy_answers(seed: int) -> Evaluation:
    """Two adapters whose answers are equally bad: now and then each of them does everything."""
    draw = np.random.default_rng(seed)

    def one(prompt: EvaluationPrompt) -> AnswerMeasures:
        return AnswerMeasures(
            tokens=int(min(96, draw.lognormal(3.8, 0.7))),
            finished=draw.random() < 0.6,
            empty=draw.random() < 0.02,
            repetition=float(draw.beta(0.4, 1.2)),
            refused=draw.random() < 0.05,
            language_kept=draw.random() < 0.85,
            format_kept=draw.random() < 0.6 if prompt.asks else None,
        )

    answers = tuple(
        PromptMeasures(prompt.id, prompt.asks, {role: one(prompt) for role in MODEL_ROLES})
        for prompt in load_prompts()
    )
    return replace(noise(seed), answers=answers)


CLEARLY_BETTER = scores([RIGHT] * 30, [RIGHT, WRONG] * 15)


# Verdicts


@pytest.mark.parametrize("seed", range(40))
def test_an_adapter_is_not_better_than_itself(seed: int) -> None:
    evidence = noise(seed)
    itself = tuple(
        replace(p, preferences=dict.fromkeys(MODEL_ROLES, p.preferences["candidate"]))
        for p in evidence.pairs
    )
    assert judge_candidate(Evaluation(itself)).verdict == "not better"


def test_an_equally_good_adapter_is_rarely_called_better() -> None:
    """Of 40, a two-sided 95% interval lies above 0 once by chance; two are allowed."""
    verdicts = [judge_candidate(noise(seed)).verdict for seed in range(40)]
    assert verdicts.count("better") <= 2
    assert set(verdicts) <= {"better", "not better"}


def test_a_clearly_better_adapter_is_better() -> None:
    report = judge_candidate(CLEARLY_BETTER)
    assert report.verdict == "better"
    assert (report.candidate_accuracy, report.incumbent_accuracy) == (1.0, 0.5)
    assert report.gain.estimate == 0.5
    assert 0 < report.gain.low < 0.5 < report.gain.high


def test_a_clearly_worse_adapter_is_not_better() -> None:
    report = judge_candidate(scores([RIGHT, WRONG] * 15, [RIGHT] * 30))
    assert report.verdict == "not better"
    assert report.gain.estimate == -0.5


def test_swapping_candidate_and_incumbent_flips_the_sign() -> None:
    new, old = [RIGHT] * 20 + [WRONG] * 10, [RIGHT, WRONG, TIED] * 10
    one, other = judge_candidate(scores(new, old)).gain, judge_candidate(scores(old, new)).gain
    assert one.estimate == pytest.approx(-other.estimate)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=0.01)
    assert (
        judge_candidate(scores(new, old)).candidate_accuracy
        == judge_candidate(scores(old, new)).incumbent_accuracy
    )


def test_a_tie_counts_as_half() -> None:
    report = judge_candidate(scores([TIED] * 10, [RIGHT] * 5 + [WRONG] * 5))
    assert (report.candidate_accuracy, report.incumbent_accuracy) == (0.5, 0.5)
    assert report.gain.estimate == 0.0


def test_a_model_that_learnt_to_be_brief_is_better_though_long_answers_are_likelier_per_token() -> (
    None
):
    """The summed log-probabilities of a brief and a long answer, of 10 and 100 tokens."""
    base = Preference(-1.5, -0.8, -15.0, -80.0)
    brief = Preference(-1.2, -0.9, -12.0, -90.0)  # +3 nats against -10
    preferences: dict[ModelRole, Preference] = {"candidate": brief, "incumbent": base, "base": base}
    rows = [PairScores(f"c{i}", False, preferences, 40, 400) for i in range(8)]
    report = judge_candidate(Evaluation(tuple(rows)))
    assert report.verdict == "better"
    assert (report.candidate_accuracy, report.incumbent_accuracy) == (1.0, 0.5)


def test_few_conversations_are_not_enough_however_many_their_pairs() -> None:
    report = judge_candidate(scores([RIGHT] * 7, [WRONG] * 7, pairs_each=100))
    assert report.verdict == "not enough data"
    assert (report.pairs, report.conversations) == (700, 7)
    assert "7 held-out conversations; 8 are needed" in report.reason
    assert judge_candidate(scores([RIGHT] * 8, [WRONG] * 8)).verdict == "better"


def test_no_scores_at_all_are_not_enough() -> None:
    report = judge_candidate(Evaluation(()))
    assert (report.verdict, report.pairs) == ("not enough data", 0)


def test_the_longer_answer_stands_beside_as_a_baseline() -> None:
    lengths = [(20, 10), (20, 10), (10, 10), (5, 10)]
    rows = [pair(f"c{i}", RIGHT, RIGHT, chars=length) for i, length in enumerate(lengths)]
    assert judge_candidate(Evaluation(tuple(rows))).longer_wins_accuracy == (1 + 1 + 0.5 + 0) / 4


def test_a_report_can_be_stored_as_json() -> None:
    report = judge_candidate(scores([RIGHT] * 10, [WRONG, RIGHT] * 5))
    assert json.loads(json.dumps(report.as_dict()))["gain"]["estimate"] == 0.5


def test_noise_in_the_feedback_does_not_turn_a_worse_adapter_into_a_better_one() -> None:
    """Three in ten of the held-out labels are flipped at random: right becomes wrong for both."""
    verdicts = []
    for seed in range(40):
        draw = np.random.default_rng(seed)
        pairs = []
        for number in range(100):
            new = RIGHT if draw.random() < 0.6 else WRONG
            old = RIGHT if draw.random() < 0.8 else WRONG
            if draw.random() < 0.3:
                new, old = new[::-1], old[::-1]
            pairs.append(pair(f"c{number}", new, old))
        verdicts.append(judge_candidate(Evaluation(tuple(pairs))).verdict)
    assert set(verdicts) == {"not better"}


# Gold


def test_gold_pairs_count_with_the_others_and_are_told_apart() -> None:
    gold = [pair(f"g{i}", RIGHT, [RIGHT, WRONG][i % 2], gold=True) for i in range(4)]
    held_out = [pair(f"c{i}", [RIGHT, WRONG][i % 2], WRONG) for i in range(12)]
    report = judge_candidate(Evaluation((*held_out, *gold)))
    assert (report.pairs, report.conversations, report.gold_pairs) == (16, 16, 4)
    assert (report.candidate_accuracy, report.incumbent_accuracy) == (10 / 16, 2 / 16)
    assert (report.candidate_gold_accuracy, report.incumbent_gold_accuracy) == (1.0, 0.5)


def test_without_gold_there_is_no_gold_accuracy() -> None:
    report = judge_candidate(CLEARLY_BETTER)
    assert (report.candidate_gold_accuracy, report.incumbent_gold_accuracy) == (None, None)


def test_a_candidate_that_is_better_elsewhere_and_worse_on_gold_is_refused() -> None:
    gold = [pair(f"g{i}", WRONG, RIGHT, gold=True) for i in range(8)]
    held_out = [pair(f"c{i}", RIGHT, WRONG) for i in range(60)]
    assert judge_candidate(Evaluation(tuple(held_out))).verdict == "better"
    report = judge_candidate(Evaluation((*held_out, *gold)))
    assert report.gain.low > 0
    assert report.verdict == "not better"
    assert "ranks fewer gold pairs rightly (gold +1.00" in report.reason


# Guards


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


def thumbs(good: float, bad: float, conversations: int = 30) -> tuple[JudgementScores, ...]:
    """Two good answers and two bad ones in each, with the candidate's rewards of them."""
    return tuple(
        JudgementScores(
            f"t{number}",
            label,
            {"candidate": good if label else bad, "incumbent": 0.0, "base": 0.0},
        )
        for number in range(conversations)
        for label in (True, True, False, False)
    )


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


# The file and the thresholds

ABOUT = {"candidate": "c", "incumbent": None, "base": "b", "snapshot": "s"}


def test_the_verdict_is_a_function_of_the_written_evaluation_and_the_thresholds(
    tmp_path: Path,
) -> None:
    thumbs_too = replace(with_answers(CLEARLY_BETTER), judgements=tuple(thumbs(2.0, -1.0)))
    for evaluation in (CLEARLY_BETTER, thumbs_too, with_answers(CLEARLY_BETTER, empty=True)):
        judged = judge_candidate(evaluation)
        digest = write_report(tmp_path, evaluation, ABOUT, judged.as_dict())
        text = (folder_of(tmp_path, digest) / "evaluation.json").read_text("utf-8")
        document = json.loads(text)
        assert judge_document(document, default_thresholds()) == judged
        assert gate_report_of(document["verdict"]) == judged


def test_an_operator_may_ask_for_more_or_tolerate_more(tmp_path: Path) -> None:
    file = tmp_path / "thresholds.yaml"
    file.write_text("min_gain: 0.9999\nguards: {tolerances: {empty: 1.0}}")
    mine = read_thresholds(file)
    assert judge_candidate(CLEARLY_BETTER).verdict == "better"
    report = judge_candidate(CLEARLY_BETTER, replace(mine, min_gain=1.0))
    assert (report.verdict, "above 1" in report.reason) == ("not better", True)
    emptied = with_answers(CLEARLY_BETTER, empty=True)
    assert judge_candidate(emptied).verdict == "not better"
    assert not any(guard.refused for guard in judge_candidate(emptied, mine).guards)


def test_thresholds_that_cannot_be_meant_are_all_named(tmp_path: Path) -> None:
    file = tmp_path / "thresholds.yaml"
    file.write_text("min_gian: 1\nmin_conversations: 2.5\nguards: {tolerances: {drift: far}}")
    with pytest.raises(InvalidInput) as refused:
        read_thresholds(file)
    for problem in (
        "min_gian is unknown",
        "min_conversations is not a whole number",
        "guards.tolerances.drift is not a number",
    ):
        assert problem in str(refused.value)


@pytest.mark.parametrize("document", [{}, {"evidence": {}}, {"evidence": {"pairs": [1]}}])
def test_what_is_no_evaluation_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="no evaluation"):
        judge_document(document, default_thresholds())
