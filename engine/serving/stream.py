"""The stream of events between the engine's thread and the reader of an answer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from engine.request import Failed, Finished, StreamEvent


class QueuedStream:
    """Implements `Stream`: a queue of events; none follows the terminal one."""

    def __init__(self, prompt_tokens: int = 0) -> None:
        self.prompt_tokens = prompt_tokens
        self._events: queue.SimpleQueue[StreamEvent] = queue.SimpleQueue()
        self._cancelled = threading.Event()
        self._ended = False  # the engine's side
        self._one_at_a_time = threading.Lock()
        self._read_to_end = False  # the reader's side

    def __iter__(self) -> Iterator[StreamEvent]:
        while not self._read_to_end:
            event = self._events.get()
            self._read_to_end = isinstance(event, Finished | Failed)
            yield event

    def cancel(self) -> None:
        """See `Stream`."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Return whether `cancel` was called."""
        return self._cancelled.is_set()

    def put(self, event: StreamEvent) -> None:
        """Publish an event; one that follows the terminal event is dropped.

        Called by the engine's thread, and by the watchdog's where the engine hangs.
        """
        with self._one_at_a_time:
            if not self._ended:
                self._ended = isinstance(event, Finished | Failed)
                self._events.put(event)
