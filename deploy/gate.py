"""The gate: is the candidate better than the incumbent? Pure: scores in, verdict out.

The statistic is the difference in preference accuracy on held-out pairs: the share of pairs in
which the chosen answer has the higher mean log-probability per token, ties counted as half. Pairs
of one conversation are not independent, so conversations are resampled, not pairs (a clustered
bootstrap: Cameron, Gelbach & Miller 2008). The "longer answer wins" baseline stands beside it,
since it beats many a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from tuning.evaluate import PairScores

Verdict = Literal["better", "not better", "not enough data"]
CONFIDENCE = 0.95
RESAMPLES = 9_999
# Below this many independent conversations the bootstrap's interval is far too narrow.
MIN_CONVERSATIONS = 8


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its two-sided confidence interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class GateReport:
    """The verdict and all it rests on."""

    verdict: Verdict
    reason: str
    pairs: int
    conversations: int
    candidate_accuracy: float
    incumbent_accuracy: float
    longer_wins_accuracy: float
    gain: Interval

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def judge(scores: Sequence[PairScores], min_conversations: int = MIN_CONVERSATIONS) -> GateReport:
    """Compare candidate and incumbent on the same held-out pairs."""
    candidate = [_win(s.candidate_chosen, s.candidate_rejected) for s in scores]
    incumbent = [_win(s.incumbent_chosen, s.incumbent_rejected) for s in scores]
    longer = [_win(s.chosen_chars, s.rejected_chars) for s in scores]
    clusters = [s.conversation_id for s in scores]
    conversations = len(set(clusters))
    gains = [c - i for c, i in zip(candidate, incumbent, strict=True)]
    gain = clustered_mean(gains, clusters) if scores else Interval(0.0, -1.0, 1.0)
    verdict, reason = _verdict(gain, conversations, min_conversations)
    return GateReport(
        verdict, reason, len(scores), conversations,
        _mean(candidate), _mean(incumbent), _mean(longer), gain,
    )  # fmt: skip


def _verdict(gain: Interval, conversations: int, minimum: int) -> tuple[Verdict, str]:
    if conversations < minimum:
        return "not enough data", (
            f"{conversations} held-out conversations; {minimum} are needed for an interval"
        )
    interval = f"gain {gain.estimate:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]"
    if gain.low > 0:
        return "better", f"{interval} lies above 0"
    return "not better", f"{interval} does not lie above 0"


def clustered_mean(values: Sequence[float], clusters: Sequence[str], *, seed: int = 0) -> Interval:
    """Mean over all values, with a percentile bootstrap over whole clusters."""
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
        confidence_level=CONFIDENCE,
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
    from scipy import stats  # as above

    quantile: Callable[[float], float] = stats.beta(won + 0.5, lost + 0.5).ppf
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if won == 0 else float(quantile(tail))
    high = 1.0 if lost == 0 else float(quantile(1 - tail))
    return Interval(won / (won + lost), low, high)


def _ratio(sums: Any, sizes: Any, axis: int) -> Any:
    return sums.sum(axis=axis) / sizes.sum(axis=axis)


def _win(chosen: float, rejected: float) -> float:
    return 0.5 if chosen == rejected else float(chosen > rejected)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.5
