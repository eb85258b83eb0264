"""A value that is read once for all who look at it within a few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedReading(Generic[T]):
    """The result of a function, at most `seconds` old; while it runs, others wait for its result.

    An error of the function is raised in who called it, and the next one calls it again.
    """

    def __init__(
        self, read: Callable[[], T], seconds: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._seconds = seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._last: tuple[float, T] | None = None

    def get(self) -> T:
        """Return the value, read anew if the last one is too old."""
        with self._lock:
            now = self._monotonic()
            if self._last is None or now - self._last[0] >= self._seconds:
                self._last = now, self._read()
            return self._last[1]

    def forget(self) -> None:
        """Let the next call read anew, since something was changed."""
        with self._lock:
            self._last = None
