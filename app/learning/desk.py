"""The operator's desk: what needs them, how it goes, and what happens next.

Gathers what the rooms below say; decides nothing itself. The console's first page and `burnish
desk` show the same `Desk`. Knows no words: those are in `app.html.desk_words`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from app.learning.shared_reading import SharedReading
from app.loop_settings import BetterRelease, better_release
from app.workspace import Workspace
from deploy.canary.plan import Canary
from deploy.releases.record import ReleaseRecord
from deploy.releases.trend import ReleasePoint, trend_of
from deploy.rounds.plan import LoopPlan
from deploy.rounds.round import Round
from deploy.rounds.trigger import FEW_PAIRS, LoopStatus
from engine.units import DAY_SECONDS
from feedback_store.view.answer_figures import AnswerFigures, read_answer_figures
from feedback_store.view.ratings import DayRatings, count_ratings_by_day
from tuning.evaluation.statistics import wilson_interval

OpenKind = Literal[
    "candidate", "canary", "failed_round", "bad_answers", "comparisons", "drafts", "alerts"
]
DESK_SECONDS = 4.0  # the age up to which all open consoles share one reading
SLOW_SECONDS = 60.0  # the same of what reads many votes, and changes slowly
NEWEST_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class OpenItem:
    """Something that waits for the operator: how many of a kind, or which release or round."""

    kind: OpenKind
    count: int = 1
    release: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ThumbShare:
    """Thumbs on answers of one release; their share has Wilson's 95% interval."""

    up: int
    down: int

    @property
    def total(self) -> int:
        """All thumbs."""
        return self.up + self.down

    @property
    def share(self) -> float:
        """The share of thumbs up; there is at least one thumb."""
        return self.up / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of the interval."""
        return wilson_interval(self.up, self.total)


@dataclass(frozen=True, slots=True)
class DeskRelease:
    """A release of the lineage: its figures, the reason of its verdict, what it learnt from.

    `sources` counts its examples by "kind/source", as `STATEMENT_NAMES` has them.
    """

    point: ReleasePoint
    reason: str
    sources: Mapping[str, int]
    was_live: bool


@dataclass(frozen=True, slots=True)
class Desk:
    """One look at everything.

    `thumbs` are by day and release, the oldest day first; `answers` are those of the last 24 hours;
    `releases` come in order of their making; `rounds` are the newest ones, the newest first.
    """

    needs: Sequence[OpenItem]
    live: str | None
    releases: Sequence[DeskRelease]
    thumbs: Sequence[DayRatings]
    answers: AnswerFigures
    loop: LoopStatus
    plan: LoopPlan
    rounds: Sequence[Round]
    canary: Canary | None  # the one that runs
    better_release: BetterRelease
    counts: Mapping[str, int]  # of feedback and of examples, by kind

    @property
    def is_new(self) -> bool:
        """Return whether nothing was trained yet."""
        return not self.releases and not self.loop.job_running

    @property
    def missing_pairs(self) -> int:
        """The pairs that a first training is short of, by the loop's own number."""
        return max(0, FEW_PAIRS - self.loop.pairs) if self.is_new else 0

    def number_of(self, bundle: str) -> int | None:
        """The number of a release in the lineage, from 1."""
        found = (each.point.number for each in self.releases if each.point.release == bundle)
        return next(found, None)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "needs": [asdict(need) for need in self.needs],
            "live": self.live or "base",
            "thumbs": [asdict(each) for each in self.thumbs],
            "answers": asdict(self.answers),
            "loop": self.loop.as_dict(),
            "plan": self.plan.as_dict(),
            "missing_pairs": self.missing_pairs,
            "better_release": self.better_release,
            "releases": [
                {**asdict(each.point), "reason": each.reason, "sources": dict(each.sources)}
                for each in self.releases
            ],
            "counts": dict(self.counts),
        }


class DeskReader:
    """Reads the desk of one home, once for all who look within `DESK_SECONDS`."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workspace = workspace
        self._clock = clock
        self._votes = SharedReading(self._read_votes, SLOW_SECONDS, monotonic)
        self._desk = SharedReading(self._read, DESK_SECONDS, monotonic)

    def read(self) -> Desk:
        """Return the desk, at most `DESK_SECONDS` old, of its votes `SLOW_SECONDS`."""
        return self._desk.get()

    def forget(self) -> None:
        """Let the next look be a fresh one, since the operator has changed something."""
        self._desk.forget()

    def _read(self) -> Desk:
        workspace = self._workspace
        loop = workspace.loop_status()  # brings the training set up to date
        examples = workspace.training_set.summary()
        record, live = workspace.registry.record(), workspace.registry.live().bundle
        rounds = workspace.loop.rounds()
        canary = workspace.canaries.newest()
        found, thumbs = self._votes.get()
        alerts = workspace.looked_alerts.mark(found)
        return Desk(
            needs=tuple(self._needs(record, live, canary, rounds, new_alerts(alerts))),
            live=live,
            releases=lineage(record, live),
            thumbs=thumbs,
            answers=read_answer_figures(workspace.database, self._clock() - DAY_SECONDS),
            loop=loop,
            plan=workspace.loop.plan(enabled=workspace.settings.loop_enabled),
            rounds=rounds[:NEWEST_ROUNDS],
            canary=canary if canary is not None and canary.runs else None,
            better_release=better_release(workspace.settings),
            counts=workspace.store.counts()
            | {status: examples.count(status) for status in examples.counts},
        )

    def _read_votes(self) -> tuple[Sequence[Mapping[str, Any]], Sequence[DayRatings]]:
        workspace = self._workspace
        thumbs = count_ratings_by_day(workspace.database, workspace.base.digest)
        return workspace.alerts(), thumbs

    def _needs(
        self,
        record: ReleaseRecord,
        live: str | None,
        canary: Canary | None,
        rounds: Sequence[Round],
        alerts: int,
    ) -> Iterable[OpenItem]:
        """Yield what waits, what concerns everybody's model first."""
        workspace = self._workspace
        waiting = workspace.releases.waiting()
        on_trial = canary.plan.candidate if canary is not None else None
        if waiting is not None and waiting != on_trial:
            yield OpenItem("candidate", release=waiting)
        if canary is not None and needs_decision(canary, record, live):
            yield OpenItem("canary", release=on_trial)
        failed = rounds[0].ended if rounds else None
        if failed is not None and failed.document["outcome"] == "failed":
            yield OpenItem("failed_round", rounds[0].number, reason=str(failed.document["reason"]))
        counted: dict[OpenKind, int] = {
            "bad_answers": workspace.inbox.count_new(),
            "comparisons": workspace.comparison_queue.counts()["waiting"],
            "drafts": workspace.drafts.count_waiting(),
            "alerts": alerts,
        }
        yield from (OpenItem(kind, count) for kind, count in counted.items() if count)


def new_alerts(alerts: Iterable[Mapping[str, Any]]) -> int:
    """Count the alerts that nobody has looked at."""
    return sum(each["looked_at"] is None for each in alerts)


def needs_decision(canary: Canary, record: ReleaseRecord, live: str | None) -> bool:
    """Return whether a canary ended undecided, and nobody has decided about its candidate since."""
    candidate = canary.plan.candidate
    return (
        canary.outcome == "undecided"
        and candidate != live
        and candidate not in record.tainted
        and all(change.at < canary.started_at for change in record.changes)
    )


def lineage(record: ReleaseRecord, live: str | None) -> Sequence[DeskRelease]:
    """Return all releases in order of their making."""
    return tuple(
        DeskRelease(
            point,
            _reason(record, point.release),
            made.sources if (made := record.releases[point.release].registered) else {},
            was_live=point.live_at is not None,
        )
        for point in trend_of(record, live, ()).releases
    )


def thumb_shares(thumbs: Iterable[DayRatings]) -> dict[str | None, ThumbShare]:
    """Add the thumbs of each release up."""
    added: dict[str | None, ThumbShare] = {}
    for day in thumbs:
        so_far = added.get(day.adapter, ThumbShare(0, 0))
        added[day.adapter] = ThumbShare(so_far.up + day.up, so_far.down + day.down)
    return added


def _reason(record: ReleaseRecord, bundle: str) -> str:
    """The reason of the gate's verdict on a release."""
    return str(record.releases[bundle].report.get("reason", ""))
