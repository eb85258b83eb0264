"""Calls that other threads queue for the engine's thread, which runs one between two steps.

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
        """Queue a call; the future gets its result or its exception."""
        future: Future[Any] = Future()
        with self._guard:
            self._queue.append((future, call))
        return future

    def run_one(self) -> None:
        """Run the first call, if there is one.

        It stays in the queue meanwhile, so that `fail` also reaches the caller of one that hangs.
        """
        if not self._queue:
            return
        future, call = self._queue[0]
        try:
            result = call()
        except Exception as error:  # noqa: BLE001 - raised again by the future, for its caller
            _end(future.set_exception, error)
        else:
            _end(future.set_result, result)
        with self._guard, suppress(IndexError):
            self._queue.popleft()

    def fail(self, error: Exception) -> None:
        """Fail every queued call; only the first end of a call counts."""
        with self._guard:
            waiting = [*self._queue]
            self._queue.clear()
        for future, _ in waiting:
            _end(future.set_exception, error)


def _end(set_outcome: Callable[[Any], None], outcome: Any) -> None:
    with suppress(InvalidStateError):  # it has ended already
        set_outcome(outcome)
