"""The loop's table of events, and the lease by which one loop at a time works on a store.

Its holder sends heartbeats (`deploy.heartbeats`), and an event is recorded under the token of the
lease alone.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    String,
    Table,
    func,
    insert,
    select,
    update,
)

from deploy.heartbeats import SilenceWatch, heartbeats
from deploy.releases.registry import release_tables
from deploy.rounds.round import BEGUN, LOOKED, STAGES, LoopEvent, LoopHistory, history_of
from engine.errors import Conflict, DatabaseUnavailable, StorageFull
from feedback_store.storage.database import Database

loop_events = Table(
    "loop_events",
    release_tables,
    Column(
        "id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    Column("round", Integer),
    Column("kind", String(16), nullable=False),
    Column("at", Float, nullable=False),
    Column("document", JSON, nullable=False),
    sqlite_autoincrement=True,
)
loop_lease = Table(
    "loop_lease",
    release_tables,
    Column("id", Integer, primary_key=True),
    Column("holder", String(32)),  # NULL: nobody
    Column("token", Integer, nullable=False),
    Column("beat", Integer, nullable=False),
)


class Lease:
    """The lease of one store, as one loop sees it."""

    def __init__(self, database: Database, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._monotonic = monotonic
        self._watch = SilenceWatch(monotonic)
        self._holder = uuid.uuid4().hex
        self._token: int | None = None

    @contextmanager
    def held(self, patience_seconds: float = 0.0) -> Iterator[None]:
        """Hold the lease and renew it in a thread.

        Raises `Conflict` while another loop holds it. Whether that one is alive is known after
        `SILENT_SECONDS`, in one call with so much patience or in several.
        """
        deadline = self._monotonic() + patience_seconds
        while not self.acquire():
            if self._monotonic() >= deadline:
                raise Conflict("another process runs the loop of this store")
            time.sleep(0.2)
        try:
            with heartbeats(self.renew, "burnish-lease"):
                yield
        finally:
            with suppress(StorageFull, DatabaseUnavailable):  # then it expires
                self.release()

    def acquire(self) -> bool:
        """Take the lease if it is free, or if its holder has not renewed it for too long."""
        with self._database.write() as connection:
            row = connection.execute(select(loop_lease)).one()
            state = (row.holder, row.token, row.beat)
            if row.holder is not None and not self._watch.silent({"lease": state}):
                return False
            self._token = row.token + 1
            connection.execute(
                update(loop_lease).values(holder=self._holder, token=self._token, beat=0)
            )
            return True

    def renew(self) -> bool:
        """Tell the others that the holder is alive; returns whether it still holds the lease."""
        with self._database.write() as connection:
            done = connection.execute(
                update(loop_lease).where(self._is_mine()).values(beat=loop_lease.c.beat + 1)
            )
            return done.rowcount == 1

    def release(self) -> None:
        """Give the lease back, unless another loop has taken it."""
        with self._database.write() as connection:
            connection.execute(update(loop_lease).where(self._is_mine()).values(holder=None))
        self._token = None

    def require(self, connection: Connection) -> None:
        """Raise `Conflict` within a transaction unless the lease is held."""
        query = select(func.count()).select_from(loop_lease).where(self._is_mine())
        if self._token is None or connection.execute(query).scalar_one() != 1:
            raise Conflict("another process has taken over the loop of this store")

    def _is_mine(self) -> Any:
        return (loop_lease.c.holder == self._holder) & (loop_lease.c.token == self._token)


class RoundStore:
    """The events of the loop, appended under the lease."""

    def __init__(
        self,
        database: Database,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """The tables are migrated by `Registry`."""
        self._database = database
        self._now = now
        self.lease = Lease(database, monotonic)

    def history(self) -> LoopHistory:
        """All rounds."""
        with self._database.read() as connection:
            return _history(connection)

    def begin(self, document: Mapping[str, Any]) -> int:
        """Begin a round; returns its number. Raises `Conflict` while another one goes on."""
        with self._database.write() as connection:
            self.lease.require(connection)
            if (unfinished := _history(connection).unfinished) is not None:
                raise Conflict(f"round {unfinished.number} of the loop goes on")
            highest = select(func.coalesce(func.max(loop_events.c.round), 0))
            number = int(connection.execute(highest).scalar_one()) + 1
            self._insert(connection, number, BEGUN, document)
            return number

    def record(self, number: int, kind: str, document: Mapping[str, Any]) -> None:
        """Append an event of a round; raises `Conflict` for a stage that is done already."""
        with self._database.write() as connection:
            self.lease.require(connection)
            if kind in STAGES:
                same = (loop_events.c.round == number) & (loop_events.c.kind == kind)
                query = select(func.count()).select_from(loop_events).where(same)
                if connection.execute(query).scalar_one():
                    raise Conflict(f"round {number} of the loop has done its {kind} already")
            self._insert(connection, number, kind, document)

    def record_look(self, reason: str) -> None:
        """Append that the evidence was weighed and no round begun."""
        with self._database.write() as connection:
            self._insert(connection, None, LOOKED, {"reason": reason})

    def _insert(
        self, connection: Connection, number: int | None, kind: str, document: Mapping[str, Any]
    ) -> None:
        row = {"round": number, "kind": kind, "at": self._now(), "document": dict(document)}
        connection.execute(insert(loop_events).values(**row))


def _history(connection: Connection) -> LoopHistory:
    rows = connection.execute(select(loop_events).order_by(loop_events.c.id)).mappings()
    return history_of(LoopEvent(r["round"], r["kind"], r["at"], r["document"]) for r in rows)
