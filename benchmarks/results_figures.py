"""Figures of held-out answers before and after training. Pure numbers: knows no model, no page.

In every measure more is better. `after` has one list of scores for each seed. An interval is of the
mean over the seeds: it says what other held-out conversations would change, and the seeds stand
beside it one by one. Log-probabilities are natural.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.request import Score
from feedback_store.examples.types import Demonstration, Pair, Unpaired
from tuning.evaluation.preferences import PairScores, win
from tuning.evaluation.statistics import CONFIDENCE, RESAMPLES, Interval, clustered_mean
from tuning.evaluation.summary import PAIR_MEASURES

Numbers = NDArray[np.float64]
Indices = NDArray[np.intp]
Measure = dict[str, Any]  # before, after (one for each seed), difference with its interval
Statistic = Callable[[Indices, Indices], Numbers]  # (..., good), (..., bad) -> (...)


def pair_measures(
    examples: Sequence[Pair], before: Sequence[PairScores], after: Sequence[Sequence[PairScores]]
) -> dict[str, Measure]:
    """Accuracy, margin and likelihood on pairs; whole conversations are resampled."""
    clusters = [pair.origin.conversation_id for pair in examples]
    return {
        name: _clustered(
            [on(pair, "candidate") for pair in before],
            [[on(pair, "candidate") for pair in seed] for seed in after],
            clusters,
        )
        for name, on in PAIR_MEASURES.items()
    }


def longer_wins(pairs: Sequence[Pair]) -> dict[str, float]:
    """What a judge scores that always takes the longer side, with its interval."""
    right = [win(len(pair.chosen.full_text), len(pair.rejected.full_text)) for pair in pairs]
    return asdict(clustered_mean(right, [pair.origin.conversation_id for pair in pairs]))


def answer_measures(
    examples: Sequence[Demonstration], before: Sequence[Score], after: Sequence[Sequence[Score]]
) -> dict[str, Measure]:
    """The mean log-probability of a token; whole conversations are resampled."""
    clusters = [
        example.origin.conversation_id
        for example, score in zip(examples, before, strict=True)
        for _ in score.token_logprobs
    ]
    measure = _clustered(_of_tokens(before), [_of_tokens(seed) for seed in after], clusters)
    return {"logprob_per_token": measure}


def judgement_measures(
    examples: Sequence[Unpaired], before: Sequence[Score], after: Sequence[Sequence[Score]]
) -> dict[str, Measure]:
    """How well likelihoods tell good answers from bad ones; good and bad are resampled apart.

    `auc_log_ratio`: how often the summed log-probability rose more for a good answer than for a bad
    one, which is the reward that KTO trains (Ethayarajh et al. 2024, sec. 3); an untrained model
    has 0.5. `auc_per_token`: how often a good answer is likelier per token than a bad one.
    `gap_per_token`: by how many nats a token. An answer is taken to be a conversation of its own.
    """
    good = np.flatnonzero([example.label for example in examples])
    bad = np.flatnonzero([not example.label for example in examples])
    if not (good.size and bad.size):
        raise ValueError("held-out judgements must have good and bad ones")
    was, was_summed = _per_token(before), _summed(before)
    now = np.stack([_per_token(seed) for seed in after])
    ratios = np.stack([_summed(seed) for seed in after]) - was_summed

    def compared(which: Callable[[Numbers], Statistic], first: Numbers, then: Numbers) -> Measure:
        def change(g: Indices, b: Indices) -> Numbers:
            every = np.stack([which(seed)(g, b) for seed in then])
            return np.asarray(every.mean(axis=0) - which(first)(g, b))

        return {
            "before": float(which(first)(good, bad)),
            "after": [float(which(seed)(good, bad)) for seed in then],
            "difference": asdict(_two_samples(change, good, bad)),
        }

    likelier = _clustered(was[good].tolist(), now[:, good].tolist(), good.tolist())
    return {
        "auc_log_ratio": compared(_auc, np.zeros_like(was), ratios),
        "auc_per_token": compared(_auc, was, now),
        "gap_per_token": compared(_gap, was, now),
        "good_logprob_per_token": likelier,
    }


def _clustered(
    before: Sequence[float], after: Sequence[Sequence[float]], clusters: Sequence[Any]
) -> Measure:
    """Paired differences, each the mean over the seeds."""
    differences = np.mean(after, axis=0) - np.asarray(before)
    return {
        "before": float(np.mean(before)),
        "after": [float(np.mean(seed)) for seed in after],
        "difference": asdict(clustered_mean(differences.tolist(), clusters)),
    }


def _two_samples(statistic: Statistic, good: Indices, bad: Indices) -> Interval:
    """A percentile bootstrap over good and bad answers, each drawn from their own.

    Fewer than two of a side tell nothing of its spread: the interval is +-1 around 0 then.
    """
    estimate = float(statistic(good, bad))
    if min(good.size, bad.size) < 2:
        return Interval(estimate, -1.0, 1.0)
    chance = np.random.default_rng(0)
    drawn = statistic(
        chance.choice(good, (RESAMPLES, good.size)), chance.choice(bad, (RESAMPLES, bad.size))
    )
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high))


def _auc(values: Numbers) -> Statistic:
    """How often a good one's value is above a bad one's; a tie is half (Hanley & McNeil 1982)."""

    def statistic(good: Indices, bad: Indices) -> Numbers:
        one, other = values[good][..., :, None], values[bad][..., None, :]
        above, same = (one > other).mean(axis=(-2, -1)), (one == other).mean(axis=(-2, -1))
        return np.asarray(above + same / 2)

    return statistic


def _gap(values: Numbers) -> Statistic:
    """The mean of the good ones' values less that of the bad ones'."""
    return lambda good, bad: np.asarray(values[good].mean(axis=-1) - values[bad].mean(axis=-1))


def _of_tokens(scores: Sequence[Score]) -> list[float]:
    return [logprob for score in scores for logprob in score.token_logprobs]


def _per_token(scores: Sequence[Score]) -> Numbers:
    return np.array([score.per_token for score in scores])


def _summed(scores: Sequence[Score]) -> Numbers:
    return np.array([score.total for score in scores])
