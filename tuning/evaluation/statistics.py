"""Intervals: of the mean of clustered values, of a share, of a win rate. Pure numbers.

Pairs of one conversation are not independent, so conversations are resampled, not pairs: a
clustered bootstrap (Cameron, Gelbach & Miller 2008). Where the values are differences between two
models on the same items, this is the paired bootstrap. The seed is fixed: the same values always
have the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 9_999


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its two-sided confidence interval."""

    estimate: float
    low: float
    high: float


def clustered_mean(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Mean over all values (at least one), with a percentile bootstrap over whole clusters.

    A single cluster tells nothing of its own spread: its interval is +-1 around 0.
    """
    names = {name: index for index, name in enumerate(dict.fromkeys(clusters))}
    sums, sizes = np.zeros(len(names)), np.zeros(len(names))
    for value, cluster in zip(values, clusters, strict=True):
        sums[names[cluster]] += value
        sizes[names[cluster]] += 1
    estimate = float(sums.sum() / sizes.sum())
    if len(names) < 2:
        return Interval(estimate, -1.0, 1.0)
    from scipy import stats  # slow to import, and a server judges seldom

    result = stats.bootstrap(
        (sums, sizes),
        _ratio,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    interval = result.confidence_interval
    return Interval(estimate, float(interval.low), float(interval.high))


def win_rate(wins: int, ties: int, losses: int) -> Interval:
    """Share of wins, ties as half, with the Jeffreys interval (Brown, Cai & DasGupta 2001, 4.3)."""
    won, lost = wins + ties / 2, losses + ties / 2
    if won + lost == 0:
        return Interval(0.5, 0.0, 1.0)
    from scipy import stats  # slow to import, and a server judges seldom

    quantile: Callable[[float], float] = stats.beta(won + 0.5, lost + 0.5).ppf
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if won == 0 else float(quantile(tail))
    high = 1.0 if lost == 0 else float(quantile(1 - tail))
    return Interval(won / (won + lost), low, high)


def wilson_interval(ups: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval (1927) of a proportion of at least one trial; `z` of 1.96 makes it 95%."""
    middle = ups + z**2 / 2
    spread = z * math.sqrt(ups * (total - ups) / total + z**2 / 4)
    return (middle - spread) / (total + z**2), (middle + spread) / (total + z**2)


def _ratio(sums: Any, sizes: Any, axis: int) -> Any:
    return sums.sum(axis=axis) / sizes.sum(axis=axis)
