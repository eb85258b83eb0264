"""Rewards of judged answers, and how often they agree with the thumbs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from engine.messages import Message
from engine.request import Score, ScoreRequest
from feedback_store.examples.types import Origin, Side, Unpaired
from tests.support.scripted_engine import ScriptedEngine
from tuning.evaluation.judgements import (
    MOST_JUDGEMENTS,
    JudgementScores,
    ranked_right,
    score_judgements,
)
from tuning.evaluation.roles import adapters_of


def scores(label: bool, reward: float) -> JudgementScores:
    return JudgementScores("c", label, {"candidate": reward, "incumbent": 0.0, "base": 0.0})


def test_an_answer_is_right_against_those_judged_otherwise_by_its_reward() -> None:
    found = [scores(True, 3.0), scores(True, 1.0), scores(False, 2.0), scores(False, 0.0)]
    # 3 is above both bad ones, 1 above one; 2 is below one good one, 0 below both
    assert ranked_right(found, "candidate") == [1.0, 0.5, 0.5, 1.0]
    assert ranked_right(found, "incumbent") == [0.5] * 4  # nothing has changed: all are level


@pytest.mark.parametrize("label", [True, False])
def test_judgements_of_one_kind_rank_nothing(label: bool) -> None:
    assert ranked_right([scores(label, 1.0), scores(label, 2.0)], "candidate") == []
    assert ranked_right([], "candidate") == []


class LengthEngine(ScriptedEngine):
    """The base gives each answer -1, adapter "x" as many nats as it has characters more."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return [
            Score((-1.0, len(each.completion) if each.adapter == "x" else 0.0)) for each in requests
        ]


def judged(number: int, text: str, label: bool) -> Unpaired:
    side = Side(text, "", True, str(number), "sha256:base", None)
    origin = Origin(f"c{number}", "hash", (number,), ("ann",))
    return Unpaired(f"{number:04}", (Message("user", "Q"),), side, label, "vote", origin)


def test_a_reward_is_what_an_adapter_adds_to_the_base() -> None:
    examples = [judged(1, "abc", True), judged(0, "ab", False)]
    found = list(score_judgements(LengthEngine(), examples, adapters_of("x", None)))
    assert [each.conversation_id for each in found] == ["c0", "c1"]
    assert [each.rewards for each in found] == [
        {"candidate": 2.0 / 2, "incumbent": 0.0, "base": 0.0},  # over two tokens
        {"candidate": 3.0 / 2, "incumbent": 0.0, "base": 0.0},
    ]


def test_no_more_are_scored_than_the_interval_gains_from() -> None:
    examples = [judged(number, "a", number % 2 == 0) for number in range(MOST_JUDGEMENTS + 5)]
    assert len(list(score_judgements(LengthEngine(), examples, adapters_of("x", None)))) == (
        MOST_JUDGEMENTS
    )
