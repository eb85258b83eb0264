"""Heartbeats in the database: a holder raises a number, and others see whether it still moves.

No time is stored, so no clock that jumps can end what is held: whoever waits measures by its own
monotonic clock how long a row has stayed as it is, as Kubernetes elects leaders (client-go,
`tools/leaderelection`). Each take-over has a new token, under which alone the holder may write (a
fencing token: Kleppmann 2016, "How to do distributed locking"), so one that was suspended and
wakes up too late writes nothing. The periodic loop and the queue of tuning jobs are held this way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress

from engine.errors import DatabaseUnavailable, StorageFull
from engine.repeater import Repeater

SILENT_SECONDS = 15.0  # another one may take over then
BEAT_SECONDS = SILENT_SECONDS / 5


class SilenceWatch:
    """A watch of rows: how long each has stayed as it is, as far as this process has seen."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._seen: dict[str, tuple[Hashable, float]] = {}  # (state, since when), by row

    def silent(self, states: Mapping[str, Hashable]) -> set[str]:
        """Note the states of all rows; returns the rows that have kept theirs for so long."""
        now, before = self._monotonic(), self._seen
        self._seen = {
            row: before[row] if row in before and before[row][0] == state else (state, now)
            for row, state in states.items()
        }
        return {row for row, (_, since) in self._seen.items() if now - since >= SILENT_SECONDS}


@contextmanager
def heartbeats(
    beat: Callable[[], bool], name: str, seconds: float = BEAT_SECONDS
) -> Iterator[None]:
    """Call `beat` in a thread, again and again, while the block runs.

    It ends earlier where `beat` returns that nothing is held any more. A database that does not
    answer is asked again with the next beat.
    """

    def beat_or_wait() -> bool:
        with suppress(StorageFull, DatabaseUnavailable):
            return beat()
        return True

    repeater = Repeater(beat_or_wait, seconds, name)
    repeater.start()
    try:
        yield
    finally:
        repeater.stop()
