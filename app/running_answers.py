"""Running answers: a server that is told to stop refuses new ones and lets these finish.

This module knows nothing of HTTP; it knows an answer only as a stream that can be cancelled.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import ShuttingDown
from engine.request import Stream

RETRY_AFTER_SECONDS = 10.0  # a restart takes about so long


class CancellationToken:
    """Cancels one answer, even before the engine has accepted it; the text so far is kept."""

    def __init__(self) -> None:
        self._stream: Stream | None = None
        self._cancelled = False

    def attach(self, stream: Stream) -> None:
        """Attach the stream once the engine has accepted the request."""
        self._stream = stream
        if self._cancelled:
            stream.cancel()

    def cancel(self) -> None:
        """End the answer within a step."""
        self._cancelled = True
        if self._stream is not None:
            self._stream.cancel()


class RunningAnswers:
    """The answers that have been requested and not yet stored."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the two below
        self._tokens: set[CancellationToken] = set()
        self._refusing = False

    @contextmanager
    def admit(self) -> Iterator[CancellationToken]:
        """Count one answer as running until the block ends; yields the token for its stream.

        Raises `ShuttingDown` after `refuse_more`.
        """
        token = CancellationToken()
        with self._lock:
            if self._refusing:
                raise ShuttingDown(
                    "the server is shutting down; ask again in a moment",
                    retry_after_seconds=RETRY_AFTER_SECONDS,
                )
            self._tokens.add(token)
        try:
            yield token
        finally:
            with self._lock:
                self._tokens.remove(token)

    @property
    def refusing(self) -> bool:
        """Whether new answers are refused."""
        return self._refusing

    @property
    def count(self) -> int:
        """The number of running answers."""
        return len(self._tokens)

    def refuse_more(self) -> None:
        """Refuse new answers; running ones go on."""
        with self._lock:
            self._refusing = True

    def stop_all(self) -> None:
        """End every running answer within a step; the text so far is kept."""
        with self._lock:
            tokens = tuple(self._tokens)
        for token in tokens:
            token.cancel()
