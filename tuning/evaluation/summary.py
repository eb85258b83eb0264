"""An evaluation's figures: each measure for each model, and the paired differences.

Knows no verdicts and draws nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, median
from typing import Any

from tuning.evaluation.answers import AnswerMeasures, PromptMeasures
from tuning.evaluation.evaluate import Evaluation
from tuning.evaluation.generic import perplexity
from tuning.evaluation.preferences import PairScores
from tuning.evaluation.rewards import DRAWN
from tuning.evaluation.roles import MODEL_ROLES, ModelRole
from tuning.evaluation.statistics import Interval, clustered_mean

OnPair = Callable[[PairScores, ModelRole], float]
# On pairs; log-probabilities in nats.
PAIR_MEASURES: Mapping[str, OnPair] = {
    "reward_accuracy_per_token": lambda pair, role: pair.ranked_right(role),
    "reward_accuracy": lambda pair, role: pair.ranked_right_summed(role),
    "accuracy": lambda pair, role: pair.preferences[role].right,
    "accuracy_summed": lambda pair, role: pair.preferences[role].right_summed,
    "margin_per_token": lambda pair, role: pair.preferences[role].margin,
    "chosen_logprob_per_token": lambda pair, role: pair.preferences[role].chosen_per_token,
}
Figures = dict[str, float | None]


def summarise(evidence: Evaluation) -> dict[str, Any]:
    """JSON-ready: `models` has the figures of each, `gold` those on gold pairs alone.

    `differences` has the candidate's paired differences to incumbent and base on all pairs, each
    with a 95% interval from a bootstrap over conversations. A figure is None where nothing was
    measured. `longer_wins_accuracy` is the baseline's.
    """
    gold = [pair for pair in evidence.pairs if pair.gold]
    return {
        "pairs": len(evidence.pairs),
        "gold_pairs": len(gold),
        "longer_wins_accuracy": _mean([pair.longer_right for pair in evidence.pairs]),
        "models": {role: _figures(evidence, role) for role in MODEL_ROLES},
        "gold": {role: _on_pairs(gold, role) for role in MODEL_ROLES},
        "differences": {
            other: {name: asdict(each) for name, each in _differences(evidence.pairs, other)}
            for other in ("incumbent", "base")
        },
        "opinions": asdict(evidence.opinions) if evidence.opinions else None,
    }


def _figures(evidence: Evaluation, role: ModelRole) -> Figures:
    tokens = sum(drift.tokens for drift in evidence.drift)
    kl = sum(drift.tokens * drift.kl[role] for drift in evidence.drift)
    return {
        **_on_pairs(evidence.pairs, role),
        "kl_to_base_per_token": kl / tokens if tokens else None,
        "perplexity": perplexity(evidence.passages, role) if evidence.passages else None,
        **_on_answers(evidence.answers, role),
        "reward_greedy": _mean([each.greedy[role] for each in evidence.rewards]),
        "reward_drawn": _mean([each.drawn[role] for each in evidence.rewards]),
        f"reward_best_of_{DRAWN}": _mean([each.best[role] for each in evidence.rewards]),
    }


def _on_pairs(pairs: Sequence[PairScores], role: ModelRole) -> Figures:
    return {name: _mean([on(pair, role) for pair in pairs]) for name, on in PAIR_MEASURES.items()}


def _on_answers(answers: Sequence[PromptMeasures], role: ModelRole) -> Figures:
    measures = [answer.measures[role] for answer in answers]
    thoughts = [answer.measures[role] for answer in answers if answer.asks == "thought"]
    return {
        "median_answer_tokens": median(m.tokens for m in measures) if measures else None,
        "length_ratio_to_incumbent": _length_ratio(answers, role),
        "finished": _mean([m.finished for m in measures]),
        "empty": _mean([m.empty for m in measures]),
        "repetition": _mean([m.repetition for m in measures]),
        "refused": _mean([m.refused for m in measures]),
        "language_kept": _mean([m.language_kept for m in measures]),
        "format_kept": _mean(_kept(measures)),
        "thoughts_parsed": _mean(_kept(thoughts)),
    }


def _kept(measures: Sequence[AnswerMeasures]) -> list[bool]:
    return [m.format_kept for m in measures if m.format_kept is not None]


def _length_ratio(answers: Sequence[PromptMeasures], role: ModelRole) -> float | None:
    """Geometric mean over prompts of the answer's length against the incumbent's, in tokens."""
    logs = [
        math.log(max(1, a.measures[role].tokens) / max(1, a.measures["incumbent"].tokens))
        for a in answers
    ]
    return math.exp(fmean(logs)) if logs else None


def _differences(pairs: Sequence[PairScores], other: ModelRole) -> Iterator[tuple[str, Interval]]:
    if not pairs:
        return
    clusters = [pair.conversation_id for pair in pairs]
    for name, on in PAIR_MEASURES.items():
        values = [on(pair, "candidate") - on(pair, other) for pair in pairs]
        yield name, clustered_mean(values, clusters)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
