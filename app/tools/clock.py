"""A clock: the date and time of a time zone, by default that of the person's browser."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, available_timezones

from engine.errors import InvalidInput

MAX_ZONE_CHARS = 64


def zone_named(name: str) -> tzinfo:
    """Return a time zone by its IANA name ("Europe/Berlin") or "UTC"; raises `InvalidInput`."""
    if name == "UTC":
        return UTC
    # Asked for by name alone, since a zone is read from a file of that name
    if len(name) > MAX_ZONE_CHARS or name not in available_timezones():
        raise InvalidInput(f"no time zone {name[:MAX_ZONE_CHARS]!r}; one is Europe/Berlin")
    return ZoneInfo(name)


def zone_of(name: str) -> tzinfo | None:
    """Return the zone that a browser names; None where it names none that is known."""
    with suppress(InvalidInput):
        return zone_named(name)
    return None


def clock(zone: tzinfo | None = None) -> str:
    """Return the date and time in a zone; None is this machine's."""
    now = datetime.now(zone) if zone else datetime.now().astimezone()
    name = str(zone) if zone else now.tzname()
    return f"{now:%A}, {now.day} {now:%B %Y, %H:%M:%S} ({name}, UTC{now:%z})"
