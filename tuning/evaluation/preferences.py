"""Preference accuracy: how well each model tells chosen from rejected on unseen pairs.

Runs on any engine, so that the running server's own model is used. Knows no verdicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from engine.request import Engine, Score, ScoreRequest
from feedback_store.examples.types import Pair
from tuning.evaluation.roles import Adapters, ModelRole, for_each_role


@dataclass(frozen=True, slots=True)
class Preference:
    """One pair under one model: log-probabilities (natural log) of both sides.

    Per token, length alone decides nothing; summed is what the DPO loss sees.
    """

    chosen_per_token: float
    rejected_per_token: float
    chosen_summed: float
    rejected_summed: float

    @property
    def right(self) -> float:
        """1 where the chosen side is likelier per token, 0.5 on a tie."""
        return win(self.chosen_per_token, self.rejected_per_token)

    @property
    def right_summed(self) -> float:
        """The same with summed log-probabilities."""
        return win(self.chosen_summed, self.rejected_summed)

    @property
    def margin(self) -> float:
        """The nats a token by which the chosen side is likelier."""
        return self.chosen_per_token - self.rejected_per_token


@dataclass(frozen=True, slots=True)
class PairScores:
    """One pair under every model. Lengths, for the "longer wins" baseline, are in characters."""

    conversation_id: str
    gold: bool
    preferences: Mapping[ModelRole, Preference]
    chosen_chars: int
    rejected_chars: int

    def ranked_right(self, role: ModelRole) -> float:
        """1 where the model's reward per token of the chosen side is the higher one, 0.5 on a tie.

        The reward is by how much a side's mean log-probability of a token is above the base
        model's: DPO's implicit reward (Rafailov et al. 2023, sec. 4) over the length. The sum
        would measure length: a model that moved in any direction loses more on the longer one of
        two answers that the base wrote, and gains more on the longer one of two that it wrote
        itself. The base model, whose rewards are all 0, has 0.5.
        """
        own, base = self.preferences[role], self.preferences["base"]
        return win(
            own.chosen_per_token - base.chosen_per_token,
            own.rejected_per_token - base.rejected_per_token,
        )

    def ranked_right_summed(self, role: ModelRole) -> float:
        """The same by DPO's own reward, the sum over an answer's tokens."""
        own, base = self.preferences[role], self.preferences["base"]
        return win(
            own.chosen_summed - base.chosen_summed, own.rejected_summed - base.rejected_summed
        )

    @property
    def longer_right(self) -> float:
        """The score of "the longer answer wins" on this pair."""
        return win(self.chosen_chars, self.rejected_chars)


def score_pairs(
    engine: Engine, pairs: Iterable[Pair], adapters: Adapters, *, gold: bool = False
) -> Iterator[PairScores]:
    """Score each pair under every adapter, which must be loaded."""
    for pair in pairs:
        yield PairScores(
            conversation_id=pair.origin.conversation_id,
            gold=gold,
            preferences=_preferences(engine, pair, adapters),
            chosen_chars=len(pair.chosen.full_text),
            rejected_chars=len(pair.rejected.full_text),
        )


def win(one: float, other: float) -> float:
    """1 where one is above the other, 0.5 on a tie, else 0."""
    return 0.5 if one == other else float(one > other)


def _preferences(engine: Engine, pair: Pair, adapters: Adapters) -> dict[ModelRole, Preference]:
    """All of a pair in one request, so that the engine can batch it."""
    distinct = list(dict.fromkeys(adapters.values()))
    scores = engine.score(
        [
            ScoreRequest(pair.prompt, side.full_text, adapter, side.complete)
            for adapter in distinct
            for side in pair.sides
        ]
    )
    both = {adapter: scores[2 * at : 2 * at + 2] for at, adapter in enumerate(distinct)}
    return for_each_role(adapters, lambda adapter: _preference(*both[adapter]))


def _preference(chosen: Score, rejected: Score) -> Preference:
    return Preference(chosen.per_token, rejected.per_token, chosen.total, rejected.total)
