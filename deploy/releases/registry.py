"""The registry: which bundles are releases, which one is live, and what each server serves.

"Live" is one row with a generation number that every change raises; a change names the generation
it saw, so of two changes at once one wins and the other gets `Conflict`. Servers follow the row and
report what they serve. Knows no engine.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    RowMapping,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)

from engine.errors import Conflict, UnknownId
from feedback_store.storage.database import Database, insert_once

release_tables = MetaData()
releases = Table(
    "releases",
    release_tables,
    Column("bundle", String(71), primary_key=True),
    Column("report", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
)
live = Table(
    "live",
    release_tables,
    Column("id", Integer, primary_key=True),
    Column("bundle", String(71)),  # NULL: the base model
    Column("generation", Integer, nullable=False),
)
history = Table(
    "release_history",
    release_tables,
    Column("generation", BigInteger, primary_key=True),
    Column("action", String(16), nullable=False),
    Column("bundle", String(71)),
    Column("previous", String(71)),
    Column("note", Text, nullable=False),
    Column("at", Float, nullable=False),
)
servers = Table(
    "servers",
    release_tables,
    Column("id", String(32), primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("bundle", String(71)),
    Column("seen_at", Float, nullable=False),
)
taints = Table(
    "taints",
    release_tables,
    Column("bundle", String(71), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
)
SERVER_LOST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Release:
    """A bundle that went through the gate, or an imported one that is yet to."""

    bundle: str
    report: Mapping[str, Any]
    created_at: float

    @property
    def origin(self) -> str:
        """Who trained it: "trained" here or "imported"; older reports do not say, and are ours."""
        return str(self.report.get("origin", "trained"))


@dataclass(frozen=True, slots=True)
class LiveRelease:
    """The live release: a bundle, or None for the base model."""

    bundle: str | None
    generation: int


@dataclass(frozen=True, slots=True)
class ReleaseChange:
    """One change of the pointer."""

    generation: int
    action: str
    bundle: str | None
    previous: str | None
    note: str
    at: float


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A running server, as it last reported itself."""

    id: str
    generation: int
    bundle: str | None
    seen_at: float


class Registry:
    """Releases, the live pointer and its history."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.migrate(
            Path(__file__).parents[1] / "migrations", version_table="alembic_version_deploy"
        )

    def add(self, bundle: str, report: Mapping[str, Any]) -> None:
        """Record a bundle with the gate's report; a newer report replaces an older one."""
        row = {"report": dict(report), "created_at": time.time()}
        with self._database.write() as connection:
            done = connection.execute(
                update(releases).where(releases.c.bundle == bundle).values(row)
            )
            if done.rowcount == 0:
                connection.execute(insert(releases).values(bundle=bundle, **row))

    def list(self) -> Sequence[Release]:
        """All releases, the newest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(releases).order_by(releases.c.created_at.desc()))
            return [Release(**row) for row in rows.mappings()]

    def get(self, bundle: str) -> Release:
        """One release; raises `UnknownId`."""
        with self._database.read() as connection:
            return Release(**_release_row(connection, bundle))

    def live(self) -> LiveRelease:
        """The live release now."""
        with self._database.read() as connection:
            return _live(connection)

    def promote(self, bundle: str, expected: LiveRelease, note: str = "") -> LiveRelease:
        """Make a release live; raises `Conflict` when the live one is no longer `expected`."""
        with self._database.write() as connection:
            _release_row(connection, bundle)
            if bundle in _taints(connection):
                raise Conflict("this release is tainted; retrain instead")
            return _move(connection, "promote", bundle, expected, note)

    def rollback_target(self, seen: LiveRelease) -> str | None:
        """The bundle that was live before `seen` was promoted; None is the base model.

        Raises `Conflict` when the base model is live already.
        """
        with self._database.read() as connection:
            return _before(connection, seen)

    def rollback(self, expected: LiveRelease, note: str = "") -> LiveRelease:
        """Make `rollback_target` live; raises `Conflict` when the live one is not `expected`."""
        with self._database.write() as connection:
            return _move(connection, "rollback", _before(connection, expected), expected, note)

    def taint(self, bundles: Iterable[str], reason: str) -> LiveRelease:
        """Mark bundles as never to be served; a live one gives way to the release before it."""
        with self._database.write() as connection:
            for bundle in bundles:
                insert_once(
                    connection, taints, {"bundle": bundle, "reason": reason, "at": time.time()}
                )
            seen = _live(connection)
            if seen.bundle is None or seen.bundle not in _taints(connection):
                return seen
            return _move(connection, "retire", _before(connection, seen), seen, reason)

    def tainted(self) -> Mapping[str, str]:
        """Bundles that are never served again, and why."""
        with self._database.read() as connection:
            return _taints(connection)

    def history(self) -> Sequence[ReleaseChange]:
        """Every change of the pointer, the newest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(history).order_by(history.c.generation.desc()))
            return [ReleaseChange(**row) for row in rows.mappings()]

    # Servers

    def report_server(self, server_id: str, generation: int, bundle: str | None) -> None:
        """Record what a server serves, as its heartbeat."""
        values = {"generation": generation, "bundle": bundle, "seen_at": time.time()}
        with self._database.write() as connection:
            done = connection.execute(
                update(servers).where(servers.c.id == server_id).values(values)
            )
            if done.rowcount == 0:
                connection.execute(insert(servers).values(id=server_id, **values))

    def remove_server(self, server_id: str) -> None:
        """Remove a server that shuts down."""
        with self._database.write() as connection:
            connection.execute(delete(servers).where(servers.c.id == server_id))

    def servers(self) -> Sequence[RunningServer]:
        """The servers with a recent heartbeat."""
        now = time.time()
        with self._database.read() as connection:
            query = select(servers).where(  # a future time is stale too: the clock was set back
                servers.c.seen_at.between(now - SERVER_LOST_SECONDS, now + SERVER_LOST_SECONDS)
            )
            return [RunningServer(**row) for row in connection.execute(query).mappings()]


def _live(connection: Connection) -> LiveRelease:
    row = connection.execute(select(live.c.bundle, live.c.generation)).mappings().one()
    return LiveRelease(**row)


def _before(connection: Connection, seen: LiveRelease) -> str | None:
    """The bundle that was live before, by replaying the history as a stack.

    A promotion pushes, a rollback pops, and a retirement also pops the tainted ones under it.
    """
    stack: list[str | None] = [None]
    query = select(history.c.action, history.c.bundle).order_by(history.c.generation)
    for action, bundle in connection.execute(query):
        if action == "promote":
            stack.append(bundle)
        else:
            stack.pop()
            while stack[-1] != bundle:
                stack.pop()
    if stack[-1] != seen.bundle:
        raise Conflict("the live release was changed meanwhile; look again")
    if seen.bundle is None:
        raise Conflict("nothing to roll back: the base model is live")
    tainted = _taints(connection)
    return next(bundle for bundle in reversed(stack[:-1]) if bundle not in tainted)


def _taints(connection: Connection) -> dict[str, str]:
    return {row.bundle: row.reason for row in connection.execute(select(taints))}


def _move(
    connection: Connection, action: str, bundle: str | None, expected: LiveRelease, note: str
) -> LiveRelease:
    now = _live(connection)
    if now != expected:
        raise Conflict("the live release was changed meanwhile; look again")
    if now.bundle == bundle:
        raise Conflict("this release is already live")
    moved = LiveRelease(bundle, now.generation + 1)
    connection.execute(
        update(live)
        .where(live.c.generation == now.generation)
        .values(bundle=bundle, generation=moved.generation)
    )
    connection.execute(
        insert(history).values(
            generation=moved.generation,
            action=action,
            bundle=bundle,
            previous=now.bundle,
            note=note,
            at=time.time(),
        )
    )
    return moved


def _release_row(connection: Connection, bundle: str) -> RowMapping:
    query = select(releases).where(releases.c.bundle == bundle)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise UnknownId(f"no release {bundle[:80]!r}")
    return row
