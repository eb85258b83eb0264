"""Sizes and times as people read them, in one way everywhere. Knows numbers alone."""

from __future__ import annotations

from datetime import datetime

DAY_SECONDS = 24 * 3600


def gib(nbytes: float) -> str:
    """A size in GiB (2^30 bytes) with a decimal, as "1.5 GiB"."""
    return f"{nbytes / 2**30:.1f} GiB"


def mib(nbytes: float) -> str:
    """A size in whole MiB (2^20 bytes), as "1,536 MiB"."""
    return f"{nbytes / 2**20:,.0f} MiB"


def local_minute(at: float) -> str:
    """A time in Unix seconds by the clock of this machine's zone, as "2026-05-31 23:59"."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")
