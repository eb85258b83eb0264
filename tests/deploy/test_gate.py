"""The gate's verdicts on evidence whose answer is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.gate.thresholds import default_thresholds, read_thresholds
from deploy.gate.verdict import gate_report_of, judge_candidate, judge_document
from engine.errors import InvalidInput
from engine.storage import folder_of
from tests.deploy.evaluations import (
    CLEARLY_BETTER,
    RIGHT,
    TIED,
    WRONG,
    noise,
    pair,
    scores,
    thumbs,
    with_answers,
)
from tuning.evaluation.evaluate import Evaluation
from tuning.evaluation.preferences import PairScores, Preference
from tuning.evaluation.report import write_report
from tuning.evaluation.roles import MODEL_ROLES, ModelRole

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


def test_a_gain_that_is_sure_but_small_is_not_better() -> None:
    report = judge_candidate(scores([RIGHT] * 9 + [WRONG] * 91, [WRONG] * 100))
    assert report.gain.estimate == pytest.approx(0.09)
    assert 0 < report.gain.low < 0.05
    assert report.verdict == "not better"
    assert "does not lie above 0.05" in report.reason


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
