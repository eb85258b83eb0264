"""Notices a step that does not end: a thread cannot be killed, but its readers can be told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Far above any step: chunks are cut to about half a second of work
HANG_SECONDS = 4.0
LOOK_SECONDS = 0.5
SLACK = 4  # a step planned to take longer than most may take this many times as long


class Watchdog:
    """Calls `give_up` once a watched step has run longer than `hang_seconds`.

    The first step that computes may compile, page in weights and is of unknown pace, so it is given
    ten times as long.
    """

    def __init__(self, give_up: Callable[[], None], hang_seconds: float = HANG_SECONDS) -> None:
        self._give_up = give_up
        self._hang_seconds = hang_seconds
        self._begun: float | None = None
        self._expected = 0.0
        self._steps = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, name="burnish-watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While the block runs, the clock does."""
        self._expected = 0.0
        self._begun = time.monotonic()
        try:
            yield
        finally:
            self._begun = None

    def expect(self, seconds: float) -> None:
        """The step that runs now computes, and is planned to take this long: a prompt that cannot
        be cut into chunks takes what it takes."""
        self._expected = seconds
        self._steps += 1

    @property
    def expired(self) -> bool:
        """Whether the step that runs now has run too long."""
        begun, patience = self._begun, self._hang_seconds * (1 if self._steps > 1 else 10)
        return begun is not None and time.monotonic() - begun > max(
            patience, SLACK * self._expected
        )

    def close(self) -> None:
        """Stop looking."""
        self._closed.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            if self.expired:
                self._give_up()
