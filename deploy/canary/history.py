"""Canaries as the release record tells of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from deploy.canary.plan import Canary, CanaryOutcome, CanaryPlan
from deploy.releases.events import (
    CanaryDecision,
    CanaryFigures,
    CanaryStarted,
    LiveChanged,
    ReleaseEvent,
    Tainted,
)

OUTCOMES: dict[CanaryDecision, CanaryOutcome] = {
    "promote": "promoted",
    "roll back": "rolled back",
    "undecided": "undecided",
}


def derive_canaries(events: Iterable[ReleaseEvent]) -> list[Canary]:
    """Derive all canaries from the events of the record, the oldest first.

    A canary ends with its decision; when the live release that it is compared with gives way,
    whoever brought that about; when its candidate is tainted; and when another one starts.
    """
    canaries: list[Canary] = []
    for event in events:
        running = canaries[-1] if canaries and canaries[-1].runs else None
        outcome = None if running is None else _outcome(event, running)
        if running is not None and outcome is not None:
            canaries[-1] = replace(running, ended_at=event.at, outcome=outcome)
        if isinstance(event, CanaryStarted):
            canaries.append(Canary(started_plan(event), event.at, actor=event.actor))
    return canaries


def started_plan(event: CanaryStarted) -> CanaryPlan:
    """Return the plan that a canary was started with."""
    values: dict[str, Any] = dict(event.plan)
    return CanaryPlan(**values)


def _outcome(event: ReleaseEvent, running: Canary) -> CanaryOutcome | None:
    """Return the outcome by which an event ends the running canary; None if it does not."""
    is_candidates = event.bundle == running.plan.candidate
    if isinstance(event, CanaryFigures) and is_candidates:
        return OUTCOMES.get(event.decision)
    if isinstance(event, Tainted) and is_candidates:
        return "rolled back"
    if isinstance(event, LiveChanged):
        return "promoted" if is_candidates else "stopped"
    return "stopped" if isinstance(event, CanaryStarted) else None
