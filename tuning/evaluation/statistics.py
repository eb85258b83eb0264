"""A mean with its interval, where values come in clusters. Pure numbers.

Pairs of one conversation are not independent, so conversations are resampled, not pairs: a
clustered bootstrap (Cameron, Gelbach & Miller 2008). Where the values are differences between two
models on the same items, this is the paired bootstrap. The seed is fixed: the same values always
have the same interval.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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


def _ratio(sums: Any, sizes: Any, axis: int) -> Any:
    return sums.sum(axis=axis) / sizes.sum(axis=axis)
