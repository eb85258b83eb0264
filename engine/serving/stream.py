"""A running answer as its reader sees it. Knows events; knows nothing of how they are made."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from engine.request import Failed, Finished, StreamEvent


class QueuedStream:
    """Events cross from the engine's thread to the reader's; after the terminal one, none."""

    def __init__(self) -> None:
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
        """Ask the engine to end the stream within a step."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked for the end."""
        return self._cancelled.is_set()

    def put(self, event: StreamEvent) -> None:
        """Called by the engine, or by whoever finds it dead. What follows a terminal event is
        dropped."""
        with self._one_at_a_time:
            if not self._ended:
                self._ended = isinstance(event, Finished | Failed)
                self._events.put(event)
