"""The loop's timetable and webhook, as the settings have them."""

from __future__ import annotations

from typing import Literal

from app.settings import Settings
from deploy.rounds.stages import Notify
from deploy.rounds.timetable import Timetable
from deploy.rounds.webhook import deliver

BetterRelease = Literal["live", "canary", "waits"]


def better_release(settings: Settings) -> BetterRelease:
    """Return what becomes of a release of the loop that the gate found better than the live one."""
    if not settings.loop_promotes:
        return "waits"
    return "canary" if settings.loop_canary else "live"


def loop_timetable(settings: Settings) -> Timetable:
    """Return when the loop may look and work; raises `InvalidInput` for unreadable hours."""
    return Timetable(
        settings.loop_schedule,
        settings.loop_quiet_hours,
        settings.loop_minutes_a_day,
        settings.loop_every_days,
    )


def loop_webhook(settings: Settings) -> Notify | None:
    """Return the function that posts a finished round to the operator's URL, if there is one."""
    url, secret = settings.loop_webhook_url, settings.loop_webhook_secret
    if url is None or secret is None:
        return None
    return lambda identity, document: deliver(url, secret.get_secret_value(), identity, document)
