"""The registry: which bundles are releases, which one is live, and what each server serves.

Everything that happens to a release is appended to one table of events (`deploy.releases.events`),
from which the states of releases are derived (`deploy.releases.record`). "Live" is one row with a
generation number that every change raises; a change names the generation it saw, so of two changes
at once one wins and the other gets `Conflict`. Servers follow the row and report what they serve.
Knows no engine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)

from deploy.releases.events import (
    Activated,
    Judged,
    LiveChanged,
    Promoted,
    Registered,
    ReleaseEvent,
    Retired,
    RolledBack,
    Tainted,
    document_of,
    event_of,
    name_of,
)
from deploy.releases.record import Release, ReleaseChange, ReleaseRecord, derive_record
from engine.errors import Conflict, UnknownId
from feedback_store.storage.database import Database

release_tables = MetaData()
release_events = Table(
    "release_events",
    release_tables,
    Column(
        "id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    Column("at", Float, nullable=False),
    Column("kind", String(24), nullable=False),
    Column("bundle", String(71)),  # NULL: the base model
    Column("actor", String(128), nullable=False),
    Column("document", JSON, nullable=False),
    sqlite_autoincrement=True,
)
live = Table(
    "live",
    release_tables,
    Column("id", Integer, primary_key=True),
    Column("bundle", String(71)),  # NULL: the base model
    Column("generation", Integer, nullable=False),
)
servers = Table(
    "servers",
    release_tables,
    Column("id", String(32), primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("bundle", String(71)),
    Column("seen_at", Float, nullable=False),
)
SERVER_LOST_SECONDS = 10.0

EventT = TypeVar("EventT", bound=ReleaseEvent)
# The number of the last event, all events, and what is derived from them
ReadSoFar = tuple[int, list[ReleaseEvent], ReleaseRecord]


@dataclass(frozen=True, slots=True)
class LiveRelease:
    """The live release: a bundle, or None for the base model."""

    bundle: str | None
    generation: int


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A running server, as it last reported itself."""

    id: str
    generation: int
    bundle: str | None
    seen_at: float


class Registry:
    """Releases, the live pointer and the record of both."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._read: ReadSoFar = (0, [], ReleaseRecord())
        database.migrate(
            Path(__file__).parents[1] / "migrations", version_table="alembic_version_deploy"
        )

    # The record

    def append(self, event: EventT) -> EventT:
        """Append an event to the record, with the time of now; returns it as it is recorded.

        Changes of the pointer and taints have methods of their own.
        """
        assert not isinstance(event, LiveChanged | Tainted), "these change more than the record"
        with self._database.write() as connection:
            return _append(connection, event)

    def events(self, bundle: str | None = None) -> Sequence[ReleaseEvent]:
        """All events, the oldest first; of one release alone, if it is given.

        An event that took a release out of service counts as one of that release, too.
        """
        with self._database.read() as connection:
            _, events, _ = self._up_to_date(connection)
        if bundle is None:
            return tuple(events)
        return tuple(e for e in events if bundle in (e.bundle, getattr(e, "previous", None)))

    def record(self) -> ReleaseRecord:
        """The states of all releases now."""
        with self._database.read() as connection:
            return self._up_to_date(connection)[2]

    def register(self, event: Registered) -> None:
        """Record how a release was made, unless that is recorded already."""
        assert event.bundle is not None, "the base model is no release"
        with self._database.write() as connection:
            known = self._up_to_date(connection)[2].releases.get(event.bundle)
            if known is None or known.registered is None:
                _append(connection, event)

    def add(self, bundle: str, report: Mapping[str, Any]) -> None:
        """Record the gate's report on a bundle; a newer report stands for an older one."""
        self.append(Judged(bundle=bundle, report=dict(report)))

    def list(self) -> Sequence[Release]:
        """All releases, the newest first."""
        found = self.record().releases.values()
        return sorted(found, key=lambda release: release.created_at, reverse=True)

    def get(self, bundle: str) -> Release:
        """One release; raises `UnknownId`."""
        return _known(self.record(), bundle)

    def tainted(self) -> Mapping[str, str]:
        """Bundles that are never served again, and why."""
        return self.record().tainted

    def history(self) -> Sequence[ReleaseChange]:
        """Every change of the pointer, the newest first."""
        return tuple(reversed(self.record().changes))

    # The pointer

    def live(self) -> LiveRelease:
        """The live release now."""
        with self._database.read() as connection:
            return _live(connection)

    def promote(
        self,
        bundle: str,
        expected: LiveRelease,
        note: str = "",
        *,
        actor: str = "",
        overridden: str | None = None,
    ) -> LiveRelease:
        """Make a release live; raises `Conflict` when the live one is no longer `expected`.

        `note` is the reason, `overridden` the gate's verdict where this goes against it.
        """
        with self._database.write() as connection:
            record = self._up_to_date(connection)[2]
            _known(record, bundle)
            if bundle in record.tainted:
                raise Conflict("this release is tainted; retrain instead")
            return _move(
                connection,
                Promoted(
                    bundle=bundle,
                    actor=actor,
                    generation=expected.generation + 1,
                    previous=expected.bundle,
                    reason=note,
                    overridden=overridden,
                ),
            )

    def rollback_target(self, seen: LiveRelease) -> str | None:
        """The bundle that was live before `seen` was promoted; None is the base model.

        Raises `Conflict` when the base model is live already.
        """
        return _ancestor(self.record(), seen)

    def rollback(self, expected: LiveRelease, note: str = "", *, actor: str = "") -> LiveRelease:
        """Make `rollback_target` live; raises `Conflict` when the live one is not `expected`."""
        with self._database.write() as connection:
            return _move(
                connection,
                RolledBack(
                    bundle=_ancestor(self._up_to_date(connection)[2], expected),
                    actor=actor,
                    generation=expected.generation + 1,
                    previous=expected.bundle,
                    reason=note,
                ),
            )

    def taint(self, bundles: Iterable[str], reason: str) -> LiveRelease:
        """Mark bundles as never to be served; a live one gives way to its untainted ancestor."""
        with self._database.write() as connection:
            record = self._up_to_date(connection)[2]
            new = [bundle for bundle in bundles if bundle not in record.tainted]
            for bundle in new:
                _append(connection, Tainted(bundle=bundle, reason=reason))
            record = replace(record, tainted={**record.tainted, **dict.fromkeys(new, reason)})
            seen = _live(connection)
            if seen.bundle is None or seen.bundle not in record.tainted:
                return seen
            return _move(
                connection,
                Retired(
                    bundle=_ancestor(record, seen),
                    generation=seen.generation + 1,
                    previous=seen.bundle,
                    reason=reason,
                ),
            )

    # Servers

    def report_server(self, server_id: str, generation: int, bundle: str | None) -> None:
        """Record what a server serves, as its heartbeat, and that it activated a release."""
        with self._database.write() as connection:
            seen_at = _clock(connection)
            values = {"generation": generation, "bundle": bundle, "seen_at": seen_at}
            query = select(servers.c.bundle).where(servers.c.id == server_id)
            known = connection.execute(query).one_or_none()
            if known is None:
                connection.execute(insert(servers).values(id=server_id, **values))
            else:
                connection.execute(update(servers).where(servers.c.id == server_id).values(values))
            if bundle != (known.bundle if known else None):
                event = Activated(bundle=bundle, actor=f"server {server_id}", generation=generation)
                _append(connection, event)

    def remove_server(self, server_id: str) -> None:
        """Remove a server that shuts down."""
        with self._database.write() as connection:
            connection.execute(delete(servers).where(servers.c.id == server_id))

    def servers(self) -> Sequence[RunningServer]:
        """The servers with a recent heartbeat."""
        with self._database.read() as connection:
            now = _clock(connection)
            query = select(servers).where(  # a future time is stale too: the clock was set back
                servers.c.seen_at.between(now - SERVER_LOST_SECONDS, now + SERVER_LOST_SECONDS)
            )
            return [RunningServer(**row) for row in connection.execute(query).mappings()]

    def heartbeats(self) -> Mapping[str, float]:
        """The last heartbeat of each server that has not been removed, by the database's clock."""
        with self._database.read() as connection:
            rows = connection.execute(select(servers.c.id, servers.c.seen_at))
            return {row.id: row.seen_at for row in rows}

    def _up_to_date(self, connection: Connection) -> ReadSoFar:
        """All events and what is derived from them.

        Events are never changed, so those that were read before are not read again.
        """
        with self._lock:
            last, events, _ = self._read
            query = select(release_events).where(release_events.c.id > last).order_by("id")
            rows = connection.execute(query).mappings().all()
            if rows:
                read = (
                    event_of(r["kind"], r["bundle"], r["actor"], r["at"], r["document"])
                    for r in rows
                )
                events = [*events, *(event for event in read if event is not None)]
                self._read = rows[-1]["id"], events, derive_record(events)
            return self._read


def _clock(connection: Connection) -> float:
    """The time in seconds on a clock that all servers share: of PostgreSQL, or of this machine."""
    if connection.dialect.name != "postgresql":
        return time.time()
    moment = func.extract("epoch", func.clock_timestamp())
    return float(connection.execute(select(moment)).scalar_one())


def _append(connection: Connection, event: EventT) -> EventT:
    recorded = replace(event, at=time.time())
    connection.execute(
        insert(release_events).values(
            at=recorded.at,
            kind=name_of(recorded),
            bundle=recorded.bundle,
            actor=recorded.actor,
            document=document_of(recorded),
        )
    )
    return recorded


def _live(connection: Connection) -> LiveRelease:
    row = connection.execute(select(live.c.bundle, live.c.generation)).mappings().one()
    return LiveRelease(**row)


def _known(record: ReleaseRecord, bundle: str) -> Release:
    found = record.releases.get(bundle)
    if found is None:
        raise UnknownId(f"no release {bundle[:80]!r}")
    return found


def _ancestor(record: ReleaseRecord, seen: LiveRelease) -> str | None:
    """The newest untainted release that was live before; raises `Conflict` if it is not `seen`."""
    if record.live_before()[-1] != seen.bundle:
        raise Conflict("the live release was changed meanwhile; look again")
    if seen.bundle is None:
        raise Conflict("nothing to roll back: the base model is live")
    return record.ancestor()


def _move(connection: Connection, change: LiveChanged) -> LiveRelease:
    """Move the pointer and record it; raises `Conflict` unless it is where `change` begins."""
    now = _live(connection)
    if now != LiveRelease(change.previous, change.generation - 1):
        raise Conflict("the live release was changed meanwhile; look again")
    if now.bundle == change.bundle:
        raise Conflict("this release is already live")
    moved = LiveRelease(change.bundle, change.generation)
    connection.execute(
        update(live)
        .where(live.c.generation == now.generation)
        .values(bundle=moved.bundle, generation=moved.generation)
    )
    _append(connection, change)
    return moved
