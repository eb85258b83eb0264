"""Reading a job's events in tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from tuning.jobs.events import JobEvent, StepDone

Kind = TypeVar("Kind", bound=JobEvent)


def of_type(events: Iterable[JobEvent], kind: type[Kind]) -> list[Kind]:
    """The events of one type, in order."""
    return [event for event in events if isinstance(event, kind)]


def steps_of(events: Iterable[JobEvent]) -> list[tuple[str, int]]:
    """The stage and number of each step, in order."""
    return [(step.stage, step.step) for step in of_type(events, StepDone)]
