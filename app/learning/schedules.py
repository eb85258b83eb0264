"""Work that the server does on a schedule, in threads of apscheduler's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def on_crontab(crontab: str, work: Callable[[], object]) -> Any:
    """Run `work` on a crontab schedule, never twice at once."""
    from apscheduler.triggers.cron import CronTrigger

    return _begin_schedule(CronTrigger.from_crontab(crontab), work)


def each_minute(work: Callable[[], object]) -> Any:
    """Run `work` once a minute, never twice at once."""
    return each_seconds(60, work)


def each_seconds(seconds: float, work: Callable[[], object]) -> Any:
    """Run `work` again and again with so many seconds between the starts, never twice at once."""
    from apscheduler.triggers.interval import IntervalTrigger

    return _begin_schedule(IntervalTrigger(seconds=seconds), work)


def _begin_schedule(trigger: Any, work: Callable[[], object]) -> Any:
    from apscheduler.schedulers.background import BackgroundScheduler

    scheduler = BackgroundScheduler()
    scheduler.add_job(work, trigger, max_instances=1, coalesce=True)
    scheduler.start()
    return scheduler
