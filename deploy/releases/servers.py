"""The living servers of a store, as one of them sees it.

Each server changes its row in the registry every few seconds. Here a row counts by the time since
it was last seen to change, on the observer's own monotonic clock: no clock of another machine, and
no jump of any, makes a server look dead or alive (as in `deploy.rounds.store`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from deploy.releases.registry import SERVER_LOST_SECONDS, Registry

SERVER_WATCH_SECONDS = 2.0


class ServerWatch:
    """The servers of a registry, observed again and again."""

    def __init__(self, registry: Registry, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._monotonic = monotonic
        self._seen: dict[str, tuple[float, float]] = {}  # id -> (heartbeat, since when)

    def alive(self) -> frozenset[str]:
        """Look, and return the servers that are not known to be dead.

        A server counts as dead once its row has not changed for `SERVER_LOST_SECONDS`; the row is
        then removed.
        """
        now = self._monotonic()
        found = self._registry.heartbeats()
        self._seen = {
            server: (beat, now if self._beat_of(server) != beat else self._seen[server][1])
            for server, beat in found.items()
        }
        lost = {s for s, (_, since) in self._seen.items() if now - since >= SERVER_LOST_SECONDS}
        for server in lost:
            self._registry.remove_server(server)
        return frozenset(self._seen.keys() - lost)

    def _beat_of(self, server: str) -> float | None:
        return self._seen[server][0] if server in self._seen else None
