"""How well an adapter tells chosen from rejected on held-out pairs: the gate's evidence.

Runs on any engine, so that the running server's own model is used. Knows no verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.request import Engine, ScoreRequest
from feedback_store.examples import Pair


@dataclass(frozen=True, slots=True)
class PairScores:
    """One held-out pair under candidate and incumbent.

    Log-probabilities are means per token (natural log), so that length alone decides nothing;
    lengths are in characters, for the "longer answer wins" baseline.
    """

    conversation_id: str
    candidate_chosen: float
    candidate_rejected: float
    incumbent_chosen: float
    incumbent_rejected: float
    chosen_chars: int
    rejected_chars: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def evaluate(
    engine: Engine, pairs: Sequence[Pair], *, candidate: str | None, incumbent: str | None
) -> list[PairScores]:
    """Score each pair under both adapters, which must be loaded (None: the base model)."""
    return [_score_pair(engine, pair, candidate, incumbent) for pair in pairs]


def _score_pair(
    engine: Engine, pair: Pair, candidate: str | None, incumbent: str | None
) -> PairScores:
    scores = engine.score(
        [
            ScoreRequest(pair.prompt, side.full_text, adapter, side.complete)
            for adapter in (candidate, incumbent)
            for side in pair.sides
        ]
    )
    candidate_chosen, candidate_rejected, incumbent_chosen, incumbent_rejected = (
        score.per_token for score in scores
    )
    return PairScores(
        conversation_id=pair.origin.conversation_id,
        candidate_chosen=candidate_chosen,
        candidate_rejected=candidate_rejected,
        incumbent_chosen=incumbent_chosen,
        incumbent_rejected=incumbent_rejected,
        chosen_chars=len(pair.chosen.full_text),
        rejected_chars=len(pair.rejected.full_text),
    )
