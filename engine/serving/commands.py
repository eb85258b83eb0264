"""Work that other threads ask of the engine's own, one piece between two steps.

Knows calls and their results; knows nothing of models or caches.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any


class Commands:
    """A queue of calls: first come, first served."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._guard = threading.Lock()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, call: Callable[[], Any]) -> Future[Any]:
        """Queue a call; what it returns or raises comes with the future."""
        future: Future[Any] = Future()
        with self._guard:
            self._queue.append((future, call))
        return future

    def run_one(self) -> None:
        """Run the first, if there is one. It stays in the queue meanwhile, so that `fail` reaches
        whoever waits for a call that hangs."""
        if not self._queue:
            return
        future, call = self._queue[0]
        try:
            result = call()
        except Exception as error:  # noqa: BLE001 - carried to the caller, who waits for it
            _settle(future.set_exception, error)
        else:
            _settle(future.set_result, result)
        with self._guard, suppress(IndexError):
            self._queue.popleft()

    def fail(self, error: Exception) -> None:
        """Nobody waits any longer; only the first end of a call counts."""
        with self._guard:
            waiting = [*self._queue]
            self._queue.clear()
        for future, _ in waiting:
            _settle(future.set_exception, error)


def _settle(end: Callable[[Any], None], outcome: Any) -> None:
    with suppress(InvalidStateError):
        end(outcome)
