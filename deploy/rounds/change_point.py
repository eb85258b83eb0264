"""A test for falling ratings: a CUSUM chart on the thumbs that the live release gets. Pure.

Each thumb is a Bernoulli observation. The cumulative sum of Page (1954) adds up the log-likelihood
ratio of "the odds of a thumb up have halved" against "they are as they were" and never falls below
0; it signals a change where it reaches a threshold h. While the ratings are no worse than at first,
the mean number of thumbs until a false signal is at least exp(h) (Lorden 1971, theorem 2;
Reynolds and Stoumbos 1999 for proportions), so h is the logarithm of the number that is wanted.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from feedback_store.records import Rating
from tuning.evaluation.statistics import wilson_interval

BASELINE_VOTES = 40  # the first thumbs of a release, which say how good it was; our own choice
# At least so many thumbs between two false signals in the mean: the gate decides anyway whether
# what a needless round trains goes live, so that a false signal costs one night's training
VOTES_BETWEEN_FALSE_SIGNALS = 500
ODDS_RATIO = 0.5  # the fall that the chart is tuned to: from 80% thumbs up to 67%; our own choice
# No person adds more than this share of the threshold, so that fewer than three never signal
PEOPLE_NEEDED = 3
BASELINE_Z = 1.2816  # the baseline is taken at the lower end of its 90% interval, one-sided


@dataclass(frozen=True, slots=True)
class RatingWatch:
    """The result of the test on the live release.

    `before` is the share of thumbs up among the first `BASELINE_VOTES`, None while there are fewer;
    `after` is the share in the `recent` thumbs since the change, where `fell`.
    """

    votes: int
    before: float | None = None
    after: float | None = None
    recent: int = 0
    fell: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def watch_ratings(ratings: Sequence[Rating], *, acted_on: int = 0) -> RatingWatch:
    """Test whether the ratings fell after event `acted_on`, by which the last round trained.

    `ratings` are those of one release, the oldest first.
    """
    baseline = _baseline(ratings)
    if len(baseline) < BASELINE_VOTES:
        return RatingWatch(len(ratings))
    last = baseline[-1].event_id
    monitored = [r for r in ratings if r.event_id > max(last, acted_on)]
    ups = sum(rating.is_up for rating in baseline)
    changed_at = change_point(monitored, wilson_lower(ups, len(baseline)))
    before = ups / len(baseline)
    if changed_at is None:
        return RatingWatch(len(ratings), before)
    recent = monitored[changed_at:]
    after = sum(rating.is_up for rating in recent) / len(recent)
    return RatingWatch(len(ratings), before, after, len(recent), fell=True)


def change_point(ratings: Iterable[Rating], rate: float) -> int | None:
    """The index from which the rate of thumbs up is lower than `rate`, or None for no signal.

    It is the maximum-likelihood estimate: where the sum that reached the threshold last left 0.
    A person's thumbs down add at most a third of the threshold between two zeros, which lowers the
    sum and therefore never makes a false signal likelier.
    """
    odds = ODDS_RATIO * rate / (1 - rate)
    lower = odds / (1 + odds)
    up, down = math.log(lower / rate), math.log((1 - lower) / (1 - rate))
    threshold = math.log(VOTES_BETWEEN_FALSE_SIGNALS)
    total, begin = 0.0, 0
    added: dict[str, float] = defaultdict(float)  # by person since the sum was 0
    for index, rating in enumerate(ratings):
        if rating.is_up:
            total += up
        else:
            step = min(down, threshold / PEOPLE_NEEDED - added[rating.user_id])
            added[rating.user_id] += step
            total += step
        if total <= 0:
            total, begin = 0.0, index + 1
            added.clear()
        if total >= threshold - 1e-9:
            return begin
    return None


def wilson_lower(ups: int, total: int) -> float:
    """The lower end of Wilson's interval of a proportion, kept inside (0, 1)."""
    return min(max(wilson_interval(ups, total, BASELINE_Z)[0], 0.01), 0.99)


def _baseline(ratings: Iterable[Rating]) -> list[Rating]:
    """The first thumbs; of one person at most a third, or one would set the standard."""
    found: list[Rating] = []
    counted: Counter[str] = Counter()
    for rating in ratings:
        if len(found) < BASELINE_VOTES and counted[rating.user_id] < (
            math.ceil(BASELINE_VOTES / PEOPLE_NEEDED)
        ):
            counted[rating.user_id] += 1
            found.append(rating)
    return found
