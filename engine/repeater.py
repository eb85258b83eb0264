"""A thread that does one thing again and again, as watchdogs, followers and heartbeats do."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Repeater:
    """Calls `work` every so many seconds, in a daemon thread, from `start` to `stop`.

    It ends by itself where `work` returns False. An error ends it, too: `work` catches what it can
    go on after.
    """

    def __init__(self, work: Callable[[], bool | None], seconds: float, name: str) -> None:
        self._work = work
        self._seconds = seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the first call of `work` comes after the first wait."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, if it was started, and wait until `work` is no longer running."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            if self._work() is False:
                return
