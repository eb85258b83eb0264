"""A test for changed wishes: does the live release rank new statements the wrong way round?

A model that learnt from people ranks what they say next rightly, or at worst no better than chance
where nothing is left to learn. One that is wrong more often than chance has learnt a wish that is
no longer theirs: concept drift, found by the model's own errors (Gama et al. 2014, A Survey on
Concept Drift Adaptation). What was said before is outdated then, and would hold the next release
back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from engine.request import Engine
from feedback_store.examples.types import Pair, Unpaired
from tuning.evaluation.judgements import ranked_right, score_judgements
from tuning.evaluation.preferences import score_pairs
from tuning.evaluation.roles import Adapters
from tuning.evaluation.statistics import Interval, clustered_mean

# One round in 2,000 finds a change where there is none, since that costs all earlier evidence. Our
# own choice
CHANGE_CONFIDENCE = 0.999
CHANCE = 0.5
MIN_CONVERSATIONS = 8  # below, a bootstrap's interval is far too narrow
MOST_STATEMENTS = 100  # of each kind, the newest; more would narrow the interval little

StatementT = TypeVar("StatementT", Pair, Unpaired)


def measure_agreement(
    engine: Engine, release: str, pairs: Sequence[Pair], judged: Sequence[Unpaired]
) -> Interval | None:
    """Return the share of statements that a release's implicit reward per token ranks rightly.

    The release must be loaded. Each pair counts as 0 or 1, a lone judgement as the share of those
    judged otherwise that it is ranked rightly against; conversations are resampled. None for fewer
    than `MIN_CONVERSATIONS`.
    """
    adapters: Adapters = {"candidate": release, "base": None}
    scored = list(score_pairs(engine, _newest(pairs), adapters))
    right = [pair.ranked_right("candidate") for pair in scored]
    clusters = [pair.conversation_id for pair in scored]
    judgements = list(score_judgements(engine, _newest(judged), adapters))
    if shares := ranked_right(judgements, "candidate"):
        right += shares
        clusters += [judgement.conversation_id for judgement in judgements]
    if len(set(clusters)) < MIN_CONVERSATIONS:
        return None
    return clustered_mean(right, clusters, confidence=CHANGE_CONFIDENCE)


def contradicts(agreement: Interval | None) -> bool:
    """Return whether the new statements say the opposite of what the release has learnt."""
    return agreement is not None and agreement.high < CHANCE


def _newest(statements: Sequence[StatementT]) -> list[StatementT]:
    return sorted(statements, key=lambda each: max(each.origin.event_ids))[-MOST_STATEMENTS:]
