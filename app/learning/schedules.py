"""Work that the server does on a schedule, in threads of apscheduler's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Schedules:
    """All scheduled work of one server. No work runs twice at once; a run that is late is made up
    for once.

    Work that was added before `start` begins with it.
    """

    def __init__(self) -> None:
        from apscheduler.schedulers.background import BackgroundScheduler  # for servers alone

        defaults = {"max_instances": 1, "coalesce": True}
        self._scheduler: Any = BackgroundScheduler(job_defaults=defaults)

    @property
    def jobs(self) -> list[Any]:
        """Everything that is scheduled, as apscheduler's jobs."""
        return list(self._scheduler.get_jobs())

    def on_crontab(self, crontab: str, work: Callable[[], object]) -> None:
        """Run `work` on a crontab schedule."""
        from apscheduler.triggers.cron import CronTrigger

        self._scheduler.add_job(work, CronTrigger.from_crontab(crontab))

    def each_minute(self, work: Callable[[], object]) -> None:
        """Run `work` once a minute."""
        self.each_seconds(60, work)

    def each_seconds(self, seconds: float, work: Callable[[], object]) -> None:
        """Run `work` again and again with so many seconds between the starts."""
        from apscheduler.triggers.interval import IntervalTrigger

        self._scheduler.add_job(work, IntervalTrigger(seconds=seconds))

    def start(self) -> None:
        """Begin to run what is scheduled."""
        self._scheduler.start()

    def stop(self) -> None:
        """Begin nothing more; what runs is not waited for."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
