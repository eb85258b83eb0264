"""Running answers: a server that is told to stop refuses new ones and lets these finish.

This module knows nothing of HTTP; it knows an answer only as a stream that can be cancelled.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from engine.errors import ShuttingDown

RETRY_AFTER_SECONDS = 10.0  # a restart takes about so long


class Cancellable(Protocol):
    """A stream of the engine's, or several."""

    def cancel(self) -> None:
        """Ask for the end within a step."""


class CancellationToken:
    """Cancels one answer, even before the engine has accepted it; the text so far is kept."""

    def __init__(self) -> None:
        self._stream: Cancellable | None = None
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Return whether the end was asked for."""
        return self._cancelled

    def attach(self, stream: Cancellable) -> None:
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
    """The answers that have been requested and not yet stored.

    Work in the background gives way to them: it is cancelled before the engine is asked for the
    answer, so that the answer waits for at most the step that is being computed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the ones below
        self._tokens: set[CancellationToken] = set()
        self._background: set[CancellationToken] = set()
        self._refusing = False
        self._idle_since = time.monotonic()

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
            for background in self._background:
                background.cancel()
        try:
            yield token
        finally:
            with self._lock:
                self._tokens.remove(token)
                self._idle_since = time.monotonic()

    @contextmanager
    def background(self) -> Iterator[CancellationToken]:
        """Do work that nobody waits for; its token is cancelled as soon as somebody asks.

        It is cancelled from the beginning where an answer runs, or answers are refused.
        """
        token = CancellationToken()
        with self._lock:
            if self._tokens or self._refusing:
                token.cancel()
            self._background.add(token)
        try:
            yield token
        finally:
            with self._lock:
                self._background.remove(token)

    @property
    def idle_seconds(self) -> float:
        """The time since the last answer ended, in seconds; 0 while one runs."""
        with self._lock:
            return 0.0 if self._tokens else time.monotonic() - self._idle_since

    @property
    def refusing(self) -> bool:
        """Return whether new answers are refused."""
        return self._refusing

    @property
    def count(self) -> int:
        """The number of running answers."""
        return len(self._tokens)

    def refuse_more(self) -> None:
        """Refuse new answers and end what runs in the background; running answers go on."""
        with self._lock:
            self._refusing = True
            for background in self._background:
                background.cancel()

    def stop_all(self) -> None:
        """End every running answer within a step; the text so far is kept."""
        with self._lock:
            tokens = tuple(self._tokens)
        for token in tokens:
            token.cancel()
