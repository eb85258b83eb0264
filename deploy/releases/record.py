"""The release record: the state of every release, derived from the events. Pure.

Nothing here is stored: the events are the record, and these values are read out of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from deploy.releases.events import (
    EVENT_NAMES,
    CanaryFigures,
    Judged,
    LiveChanged,
    Promoted,
    Registered,
    ReleaseEvent,
    Tainted,
)


@dataclass(frozen=True, slots=True)
class Release:
    """A bundle that went through the gate, or an imported one that is yet to.

    `created_at` is the time of its first event, `judged_at` that of the report; `live_at` is when
    it first became live.
    """

    bundle: str
    report: Mapping[str, Any]
    created_at: float
    judged_at: float | None = None
    live_at: float | None = None
    tainted: str | None = None  # why it is never served again
    registered: Registered | None = None
    canary: CanaryFigures | None = None  # the newest figures

    @property
    def origin(self) -> str:
        """Its origin: "trained" here or "imported". Older reports do not say, and are ours."""
        if self.registered is not None:
            return self.registered.origin
        return str(self.report.get("origin", "trained"))


@dataclass(frozen=True, slots=True)
class ReleaseChange:
    """One change of the pointer."""

    generation: int
    action: str
    bundle: str | None
    previous: str | None
    note: str
    at: float
    actor: str = ""
    overridden: str | None = None


@dataclass(frozen=True, slots=True)
class ReleaseRecord:
    """All releases by bundle, the changes of the pointer and the taints, the oldest first."""

    releases: Mapping[str, Release] = field(default_factory=dict)
    changes: Sequence[ReleaseChange] = ()
    tainted: Mapping[str, str] = field(default_factory=dict)

    def live_before(self) -> Sequence[str | None]:
        """The bundles that a rollback would return to, the next one last; the base model first.

        The changes are replayed as a stack: a promotion pushes, a rollback pops, and a retirement
        also pops the tainted ones under it. What is live now is on top.
        """
        stack: list[str | None] = [None]
        for change in self.changes:
            if change.action == EVENT_NAMES[Promoted]:
                stack.append(change.bundle)
                continue
            stack.pop()
            while stack[-1] != change.bundle:
                stack.pop()
        return stack

    def ancestor(self) -> str | None:
        """The newest release that was live before this one and is not tainted; None is the base."""
        *before, _ = self.live_before()
        return next(bundle for bundle in reversed(before) if bundle not in self.tainted)


def derive_record(events: Iterable[ReleaseEvent]) -> ReleaseRecord:
    """Derive the state of every release from all events, the oldest first."""
    releases: dict[str, Release] = {}
    changes: list[ReleaseChange] = []
    tainted: dict[str, str] = {}
    for event in events:
        if isinstance(event, LiveChanged):
            changes.append(_change(event))
        if isinstance(event, Tainted) and event.bundle is not None:
            tainted.setdefault(event.bundle, event.reason)
        if event.bundle is None:
            continue
        known = releases.get(event.bundle)
        if known is None and isinstance(event, Registered | Judged):
            known = Release(event.bundle, {}, event.at)
        if known is not None:
            releases[event.bundle] = _after(known, event)
    marked = {
        bundle: replace(release, tainted=tainted.get(bundle))
        for bundle, release in releases.items()
    }
    return ReleaseRecord(marked, tuple(changes), tainted)


def _after(release: Release, event: ReleaseEvent) -> Release:
    """A release after one more event about it."""
    if isinstance(event, Registered):
        return replace(release, registered=release.registered or event)
    if isinstance(event, Judged):
        return replace(release, report=event.report, judged_at=event.at)
    if isinstance(event, CanaryFigures):
        return replace(release, canary=event)
    if isinstance(event, Promoted) and release.live_at is None:
        return replace(release, live_at=event.at)
    return release


def _change(event: LiveChanged) -> ReleaseChange:
    overridden = event.overridden if isinstance(event, Promoted) else None
    return ReleaseChange(
        event.generation,
        EVENT_NAMES[type(event)],
        event.bundle,
        event.previous,
        event.reason,
        event.at,
        event.actor,
        overridden,
    )
