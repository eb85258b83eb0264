"""The trend of the releases: each against the one before it and the base model, what it cost,
and the thumbs that it got by day. Pure: the record and counts in, points to draw out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deploy.releases.record import Release, ReleaseRecord
from feedback_store.view.ratings import DayRatings
from tuning.evaluation.statistics import Interval


@dataclass(frozen=True, slots=True)
class ReleasePoint:
    """One release of the lineage. The gains are differences of shares, with 95% intervals.

    `gain` is that on the incumbent of its evaluation, `incumbent` (None: the base model); None
    before it was judged.
    """

    number: int  # from 1, the oldest
    release: str
    parent: str | None  # the bundle that its training started from
    incumbent: str | None
    verdict: str | None
    gain: Interval | None
    gain_on_base: Interval | None
    created_at: float
    live_at: float | None
    is_live: bool
    tainted: bool
    seconds: float | None
    tokens: float | None


@dataclass(frozen=True, slots=True)
class Trend:
    """All releases, the oldest first, and the thumbs of each release on each day."""

    releases: Sequence[ReleasePoint]
    thumbs: Sequence[DayRatings]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def trend_of(record: ReleaseRecord, live: str | None, thumbs: Iterable[DayRatings]) -> Trend:
    """Return the points of a record; `live` is the bundle that is live now."""
    ordered = sorted(record.releases.values(), key=lambda release: release.created_at)
    points = [_point(number, each, live) for number, each in enumerate(ordered, start=1)]
    return Trend(points, tuple(thumbs))


def _point(number: int, release: Release, live: str | None) -> ReleasePoint:
    report, made = release.report, release.registered
    return ReleasePoint(
        number=number,
        release=release.bundle,
        parent=made.parent if made else None,
        incumbent=report.get("incumbent"),
        verdict=report.get("verdict"),
        gain=_interval(report.get("gain")),
        gain_on_base=_interval(report.get("gain_on_base")),
        created_at=release.created_at,
        live_at=release.live_at,
        is_live=release.bundle == live,
        tainted=release.tainted is not None,
        seconds=made.seconds if made else None,
        tokens=made.tokens if made else None,
    )


def _interval(document: Mapping[str, float] | None) -> Interval | None:
    """The interval of a report; None where an earlier version wrote no ends of it."""
    if document is None or "low" not in document:
        return None
    return Interval(**document)
