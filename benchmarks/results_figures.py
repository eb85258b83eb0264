"""Statistics of held-out answers before and after training. Knows no model and no page.

For every measure, more is better. `after` has one list of scores for each seed. An interval belongs
to the mean over the seeds and reflects the choice of held-out conversations; the values of the
seeds are listed beside it. Log-probabilities are natural.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
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
    """Return accuracy, margin and likelihood on pairs; whole conversations are resampled.

    The base model is the one before training, whose `reward_accuracy` is 0.5.
    """
    clusters = [pair.origin.conversation_id for pair in examples]
    compared = [_beside_base(before, seed) for seed in (before, *after)]
    return {
        name: _clustered(
            [on(pair, "candidate") for pair in compared[0]],
            [[on(pair, "candidate") for pair in seed] for seed in compared[1:]],
            clusters,
        )
        for name, on in PAIR_MEASURES.items()
    }


def _beside_base(before: Sequence[PairScores], after: Sequence[PairScores]) -> list[PairScores]:
    """Return the scores after training, with those before it as the base model's."""
    return [
        replace(new, preferences={**new.preferences, "base": old.preferences["candidate"]})
        for old, new in zip(before, after, strict=True)
    ]


def longer_wins(pairs: Sequence[Pair]) -> dict[str, float]:
    """Return the accuracy of always choosing the longer side, with its interval."""
    right = [win(len(pair.chosen.full_text), len(pair.rejected.full_text)) for pair in pairs]
    return asdict(clustered_mean(right, [pair.origin.conversation_id for pair in pairs]))


def answer_measures(
    examples: Sequence[Demonstration], before: Sequence[Score], after: Sequence[Sequence[Score]]
) -> dict[str, Measure]:
    """Return the mean log-probability of a token; whole conversations are resampled."""
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
    """Return how well likelihoods separate good from bad answers, resampled separately.

    `auc_log_ratio`: how often the summed log-probability rose more for a good answer than for a bad
    one, which is the reward that KTO trains (Ethayarajh et al. 2024, sec. 3); an untrained model
    has 0.5. `auc_per_token`: how often a good answer is likelier per token than a bad one.
    `gap_per_token`: by how many nats a token. Each answer counts as a conversation of its own.
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
    """Return paired differences, each the mean over the seeds."""
    differences = np.mean(after, axis=0) - np.asarray(before)
    return {
        "before": float(np.mean(before)),
        "after": [float(np.mean(seed)) for seed in after],
        "difference": asdict(clustered_mean(differences.tolist(), clusters)),
    }


def _two_samples(statistic: Statistic, good: Indices, bad: Indices) -> Interval:
    """Return a percentile bootstrap in which good and bad answers are resampled separately.

    With fewer than two on a side the spread is unknown, and the interval is -1 to 1.
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
    """Return the AUC of good over bad values; a tie counts half (Hanley & McNeil 1982)."""

    def statistic(good: Indices, bad: Indices) -> Numbers:
        one, other = values[good][..., :, None], values[bad][..., None, :]
        above, same = (one > other).mean(axis=(-2, -1)), (one == other).mean(axis=(-2, -1))
        return np.asarray(above + same / 2)

    return statistic


def _gap(values: Numbers) -> Statistic:
    """Return the mean of the good values minus that of the bad ones."""
    return lambda good, bad: np.asarray(values[good].mean(axis=-1) - values[bad].mean(axis=-1))


def _of_tokens(scores: Sequence[Score]) -> list[float]:
    return [logprob for score in scores for logprob in score.token_logprobs]


def _per_token(scores: Sequence[Score]) -> Numbers:
    return np.array([score.per_token for score in scores])


def _summed(scores: Sequence[Score]) -> Numbers:
    return np.array([score.total for score in scores])
