"""Lone judgements: whether each model's rewards of unseen answers agree with people's thumbs.

A reward is the implicit one per token: by how much an answer's mean log-probability of a token is
above the base model's (see `PairScores.ranked_right`). Answers to different prompts are compared,
so a single one is noisy. Runs on any engine. Knows no verdicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from engine.request import Engine, ScoreRequest
from feedback_store.examples.types import Unpaired
from tuning.evaluation.roles import Adapters, ModelRole, for_each_role

MOST_JUDGEMENTS = 400  # scored; more would narrow the interval little
SCORED_TOGETHER = 8


@dataclass(frozen=True, slots=True)
class JudgementScores:
    """One judged answer, and each model's reward of it in nats a token."""

    conversation_id: str
    label: bool
    rewards: Mapping[ModelRole, float]


def score_judgements(
    engine: Engine, examples: Sequence[Unpaired], adapters: Adapters
) -> Iterator[JudgementScores]:
    """Score the first `MOST_JUDGEMENTS` answers under every adapter, which must be loaded."""
    chosen = list(islice(sorted(examples, key=lambda example: example.id), MOST_JUDGEMENTS))
    means = for_each_role(adapters, lambda adapter: _means(engine, chosen, adapter))
    for number, example in enumerate(chosen):
        base = means["base"][number]
        rewards = {role: found[number] - base for role, found in means.items()}
        yield JudgementScores(example.origin.conversation_id, example.label, rewards)


def ranked_right(scores: Sequence[JudgementScores], role: ModelRole) -> list[float]:
    """The share, for each answer, of those judged otherwise that its reward ranks rightly against.

    Their mean over the good ones is the area under the ROC curve, as it is over the bad ones
    (Hanley & McNeil 1982); a tie counts half. [] where all are good, or all are bad.
    """
    import numpy as np  # slow to import, and commands that only look at the loop compute nothing

    rewards = np.array([each.rewards[role] for each in scores])
    labels = np.array([each.label for each in scores], dtype=bool)
    if labels.all() or not labels.any():
        return []
    above = np.sign(rewards[:, None] - rewards[None, :]) / 2 + 0.5  # 1 above, 0.5 on a tie
    right = np.where(labels[:, None], above, 1 - above)
    others = labels[:, None] != labels[None, :]
    shares: list[float] = ((right * others).sum(1) / others.sum(1)).tolist()
    return shares


def _means(engine: Engine, examples: Sequence[Unpaired], adapter: str | None) -> list[float]:
    requests = [
        ScoreRequest(
            example.prompt, example.completion.full_text, adapter, example.completion.complete
        )
        for example in examples
    ]
    batches = (
        requests[start : start + SCORED_TOGETHER]
        for start in range(0, len(requests), SCORED_TOGETHER)
    )
    return [score.per_token for some in batches for score in engine.score(some)]
