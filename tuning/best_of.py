"""Best of n: draw several answers to a prompt and take the one with the highest reward.

The simplest use of a reward model: it trains nothing (Nakano et al. 2021; Gao et al. 2023). Runs on
any engine. Knows no trainer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from engine.errors import InvalidInput
from engine.messages import Message
from engine.request import Engine, Finished, GenerationRequest, SamplingParams, collect


class Scorer(Protocol):
    """A scorer of answers, such as `tuning.methods.reward_model.RewardModel`."""

    def score(self, prompt: Sequence[Message], answer: str, *, complete: bool = True) -> float:
        """Score an answer; higher is better."""
        ...


@dataclass(frozen=True, slots=True)
class BestOf:
    """All answers with their scores; `best` is the index of the best, the first of equals."""

    answers: tuple[Finished, ...]
    scores: tuple[float, ...]
    best: int

    @property
    def answer(self) -> Finished:
        """The best answer."""
        return self.answers[self.best]


def best_of(
    engine: Engine,
    scorer: Scorer,
    prompt: Sequence[Message],
    n: int,
    *,
    sampling: SamplingParams | None = None,
    adapter: str | None = None,
) -> BestOf:
    """Draw n answers, with `sampling`'s seed and those after it, and score them.

    Raises `InvalidInput` for n below 1 or for several greedy answers, which would all be one; the
    engine's error where an answer fails.
    """
    sampling = sampling or SamplingParams()
    if n < 1:
        raise InvalidInput("n must be at least 1")
    if n > 1 and sampling.temperature == 0:
        raise InvalidInput("several answers at temperature 0 would all be the same")
    streams = engine.submit_many(
        [
            GenerationRequest(tuple(prompt), replace(sampling, seed=sampling.seed + i), adapter)
            for i in range(n)
        ]
    )
    answers = tuple(collect(stream) for stream in streams)
    scores = tuple(
        scorer.score(prompt, answer.text, complete=answer.reason == "stop") for answer in answers
    )
    return BestOf(answers, scores, best=scores.index(max(scores)))
