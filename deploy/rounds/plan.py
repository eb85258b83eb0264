"""The loop's next action at a moment, by its history and its timetable alone. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from deploy.rounds.round import LoopHistory, Round
from deploy.rounds.timetable import Timetable, is_waiting, wait_after_attempts, wait_after_rounds

Action = Literal["go on", "look", "wait"]


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """Go on with a round, look at the evidence, or wait: why, and until when in Unix seconds."""

    action: Action
    reason: str
    until: float | None = None
    round: int | None = None
    stage: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def loop_plan(
    history: LoopHistory, timetable: Timetable, *, now: float, looked_at: float, enabled: bool
) -> LoopPlan:
    """Return the plan for `now`; `looked_at` is when the schedule was last obeyed.

    A round that somebody asked for heeds neither quiet hours nor minutes a day.
    """
    going_on = history.unfinished
    number, stage = (going_on.number, going_on.next_stage) if going_on else (None, None)

    def wait(reason: str, until: float | None = None) -> LoopPlan:
        return LoopPlan("wait", reason, until, number, stage)

    if going_on is None and not enabled:
        return wait("the loop is switched off: a round runs when somebody asks for one")
    if going_on is None or not going_on.begun.get("forced"):
        if (until := timetable.quiet_until(now)) is not None:
            return wait("these are quiet hours", until)
        if timetable.seconds_left(history.worked, now) <= 0:
            return wait("today's minutes of work are used up")
    if going_on is not None:
        return _retried(going_on, now) or LoopPlan(
            "go on", f"round {number} goes on with its stage {stage}", None, number, stage
        )
    if failed := history.failed_in_a_row:
        newest, seconds = failed[0].ended, wait_after_rounds(len(failed))
        assert newest is not None, "a round that failed has ended"
        if is_waiting(newest.at, seconds, now):
            return wait(f"{len(failed)} rounds in a row have failed", newest.at + seconds)
    if not timetable.is_look_due(looked_at, now):
        return wait("the next look at the feedback is scheduled", timetable.next_look(now))
    return LoopPlan("look", "a look at the feedback is due")


def _retried(round_: Round, now: float) -> LoopPlan | None:
    """The wait after a failed attempt, while it lasts."""
    if not round_.failures:
        return None
    last, seconds = round_.failures[-1], wait_after_attempts(len(round_.failures))
    if not is_waiting(last.at, seconds, now):
        return None
    reason = (
        f"attempt {len(round_.failures)} of round {round_.number} failed in its stage"
        f" {last.document['stage']}: {last.document['error']}"
    )
    return LoopPlan("wait", reason, last.at + seconds, round_.number, round_.next_stage)
