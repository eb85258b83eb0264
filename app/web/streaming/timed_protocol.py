"""Time limits for requests: an unfinished request does not hold a connection for ever.

Knows uvicorn's HTTP/1.1 protocol, which limits idle connections and nothing else.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0
BODY_SECONDS = 60.0  # 4 MiB take 34 s at a megabit a second
TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class TimedProtocol(H11Protocol):
    """Closes a connection whose headers or body are not complete in time."""

    header_seconds = HEADER_SECONDS
    body_seconds = BODY_SECONDS
    _waits_for: Any = None  # the part of a request that the timer limits: h11's state
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first request's headers."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Parse the data and update the timer."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Keep one timer per part; further bytes of the same part do not restart it."""
        state = self.conn.their_state
        if state is self._waits_for:
            return
        self._stop_timer()
        seconds = {h11.IDLE: self.header_seconds, h11.SEND_BODY: self.body_seconds}.get(state)
        if seconds is not None:
            self._waits_for = state
            self._timer = self.loop.call_later(seconds, self._time_out)

    def _stop_timer(self) -> None:
        self._waits_for = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # no response has started
            self.transport.write(TIMED_OUT)
        self.transport.close()
