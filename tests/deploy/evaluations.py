"""Evaluations of a candidate and an incumbent, whose verdict is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tuning.evaluation.answers import AnswerMeasures, EvaluationPrompt, PromptMeasures, load_prompts
from tuning.evaluation.evaluate import Evaluation
from tuning.evaluation.judgements import JudgementScores
from tuning.evaluation.preferences import PairScores, Preference
from tuning.evaluation.roles import MODEL_ROLES, ModelRole

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
