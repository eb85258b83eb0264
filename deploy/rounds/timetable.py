"""The loop's times: schedule, quiet hours, minutes a day, and back-off. Pure.

Times are Unix seconds; hours and days are those of a time zone, by default the machine's. A time
that lies in the future was written before the clock was set back, and holds nothing up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo

from engine.errors import InvalidInput
from engine.units import DAY_SECONDS

HOURS = re.compile(r"^([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)$")
MAX_ATTEMPTS = 5  # of a round; our own choice
# After a failed attempt: 5, 20, 80, 320 minutes. After rounds that failed: 1, 2, 4 ... days
FIRST_WAIT_SECONDS, WAIT_FACTOR = 300.0, 4
MAX_WAIT_DAYS = 7


@dataclass(frozen=True, slots=True)
class Timetable:
    """The operator's settings of the loop that are about time."""

    crontab: str = "0 3 * * *"  # when the evidence is looked at
    quiet_hours: str | None = None  # "08:00-18:00": nothing is begun, and a running job is stopped
    minutes_a_day: int | None = None  # of work
    every_days: int | None = None  # a round is due then, if there is anything new at all
    zone: tzinfo | None = None

    def __post_init__(self) -> None:
        """Raises `InvalidInput` for quiet hours of another form."""
        if self.quiet_hours is not None and HOURS.match(self.quiet_hours) is None:
            raise InvalidInput(f"quiet hours are written 08:00-18:00, not {self.quiet_hours!r}")

    def next_look(self, after: float) -> float | None:
        """The first time of the schedule after a moment; None if there is none any more."""
        from apscheduler.triggers.cron import CronTrigger
        from tzlocal import get_localzone

        trigger = CronTrigger.from_crontab(self.crontab, timezone=self.zone or get_localzone())
        begin = datetime.fromtimestamp(after, trigger.timezone) + timedelta(microseconds=1)
        found = trigger.get_next_fire_time(None, begin)
        return None if found is None else found.timestamp()

    def is_look_due(self, looked_at: float, now: float) -> bool:
        """Return whether a time of the schedule has come since the last look."""
        following = self.next_look(looked_at)
        return following is not None and following <= now

    def quiet_until(self, now: float) -> float | None:
        """The end of the quiet hours, if it is quiet now. Hours may go past midnight."""
        if self.quiet_hours is None:
            return None
        found = HOURS.match(self.quiet_hours)
        assert found is not None, "checked when it was made"
        hour, minute, end_hour, end_minute = map(int, found.groups())
        begin, end = time(hour, minute), time(end_hour, end_minute)
        here = datetime.fromtimestamp(now, self.zone)
        clock = here.time()
        over_midnight = begin >= end
        if not (clock >= begin or clock < end if over_midnight else begin <= clock < end):
            return None
        day = here.date() + timedelta(days=over_midnight and clock >= begin)
        return datetime.combine(day, end, here.tzinfo).timestamp()

    def seconds_left(self, worked: Iterable[tuple[float, float]], now: float) -> float:
        """The seconds of work that are left today, after spans of (end, seconds)."""
        if self.minutes_a_day is None:
            return float("inf")
        today = datetime.fromtimestamp(now, self.zone).date()
        spent = sum(
            seconds
            for at, seconds in worked
            if datetime.fromtimestamp(at, self.zone).date() == today
        )
        return max(0.0, self.minutes_a_day * 60 - spent)

    def is_overdue(self, last_end: float | None, now: float) -> bool:
        """Return whether the last round ended longer ago than `every_days`."""
        if self.every_days is None or last_end is None:
            return False
        return now - last_end >= self.every_days * DAY_SECONDS


def wait_after_attempts(failures: int) -> float:
    """The seconds until a round is tried again after so many failed attempts of it."""
    return 0.0 if failures == 0 else FIRST_WAIT_SECONDS * WAIT_FACTOR ** (failures - 1)


def wait_after_rounds(failed: int) -> float:
    """The seconds until a new round after so many in a row that failed."""
    return 0.0 if failed == 0 else DAY_SECONDS * min(2 ** (failed - 1), MAX_WAIT_DAYS)


def is_waiting(since: float, seconds: float, now: float) -> bool:
    """Return whether fewer `seconds` have passed since a moment that is not in the future."""
    return 0 <= now - since < seconds
