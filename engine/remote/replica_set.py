"""The servers of one remote engine: which of them can be asked, and what is loaded into all."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from engine.errors import BurnishError, InvalidInput, PeerUnavailable
from engine.remote.replica import Replica
from engine.repeater import Repeater

REPLICA_LOOK_SECONDS = 2.0


class ReplicaSet:
    """Servers of one base model. A thread looks at them until `close`."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        base_digest: str,
        look_seconds: float = REPLICA_LOOK_SECONDS,
    ) -> None:
        """Raises `ModelUnavailable` where a server serves another model, `PeerUnavailable` where
        one does not answer, and `InvalidInput` for no server."""
        if not replicas:
            raise InvalidInput("a remote engine needs the URL of a server of vLLM's")
        self._replicas = replicas
        self._base_digest = base_digest
        self.context_tokens = min(each.require_base(base_digest) for each in replicas)
        self.adapters: dict[str, Path] = {}
        self._loading = threading.Lock()  # one adapter at a time; guards the one above
        self._turn = itertools.count()
        self._watch = Repeater(self._look, look_seconds, "remote-engine-watch")
        self._watch.start()

    @property
    def healthy(self) -> list[Replica]:
        """The servers that can be asked."""
        return [each for each in self._replicas if each.healthy]

    def in_turn(self) -> list[Replica]:
        """The healthy servers, the next one first."""
        healthy = self.healthy
        first = next(self._turn) % max(1, len(healthy))
        return healthy[first:] + healthy[:first]

    def load(self, digest: str, folder: Path) -> None:
        """Load an adapter into every healthy server, or into none where one refuses it.

        Raises `InvalidBundle` where one does, and `PeerUnavailable` where no server is left.
        """
        with self._loading:
            loaded: list[Replica] = []
            try:
                for replica in self.healthy:
                    with suppress(PeerUnavailable):  # it gets the adapter when it is back
                        replica.load(digest, folder)
                        loaded.append(replica)
            except BurnishError:
                _unload(digest, loaded)
                raise
            if not loaded:
                raise PeerUnavailable("no server of the remote engine answers")
            self.adapters[digest] = folder

    def unload(self, digest: str) -> None:
        """Unload an adapter from every healthy server."""
        with self._loading:
            self.adapters.pop(digest, None)
            _unload(digest, self.healthy)

    def close(self) -> None:
        """Look at the servers no more."""
        self._watch.stop()

    def _look(self) -> None:
        """Look at the servers; one that is back gets all adapters before it is asked again."""
        for replica in self._replicas:
            if replica.look() and not replica.healthy:
                with suppress(BurnishError):
                    self._take_back(replica)

    def _take_back(self, replica: Replica) -> None:
        with self._loading:
            replica.require_base(self._base_digest)
            for digest, folder in self.adapters.items():
                replica.load(digest, folder)
            replica.healthy = True


def _unload(digest: str, replicas: Sequence[Replica]) -> None:
    for replica in replicas:
        with suppress(PeerUnavailable):  # it has restarted, or is away: nobody asks it for this one
            replica.unload(digest)
