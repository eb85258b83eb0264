"""The watchdog: a thread that notices a step which hangs, so that its readers can be told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.repeater import Repeater

HANG_SECONDS = 4.0  # far above any step, since a chunk is about half a second of work at most
POLL_SECONDS = 0.5
SLACK = 4  # a step may take this many times as long as planned


class Watchdog:
    """Calls `give_up` once a watched step has run longer than `hang_seconds`.

    The first step that computes is given ten times as long: its pace is unknown, and it may have to
    read the weights from the disk.
    """

    def __init__(self, give_up: Callable[[], None], hang_seconds: float = HANG_SECONDS) -> None:
        self._give_up = give_up
        self._hang_seconds = hang_seconds
        self._begun: float | None = None
        self._expected = 0.0
        self._steps = 0
        self._looks = Repeater(self._look, POLL_SECONDS, "burnish-watchdog")
        self._looks.start()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the step that the block makes."""
        self._expected = 0.0
        self._begun = time.monotonic()
        try:
            yield
        finally:
            self._begun = None

    def expect(self, seconds: float) -> None:
        """Announce how long the running step is planned to compute.

        A prompt that cannot be cut into chunks may take longer than `hang_seconds`.
        """
        self._expected = seconds
        self._steps += 1

    @property
    def expired(self) -> bool:
        """Return whether the running step has run too long."""
        begun, patience = self._begun, self._hang_seconds * (1 if self._steps > 1 else 10)
        return begun is not None and time.monotonic() - begun > max(
            patience, SLACK * self._expected
        )

    def close(self) -> None:
        """End the watchdog's thread."""
        self._looks.stop()

    def _look(self) -> None:
        if self.expired:
            self._give_up()
