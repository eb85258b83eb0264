"""Counters of turns, answers and statements, counted once and then kept up to date.

A count over the view of what is current reads every event; a server is asked for it at each look
at its metrics. So what was counted is remembered, and of newer events alone it is found out which
older ones they took the place of. Knows tables; safe to share between threads.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, case, exists, func, select
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import last_erasure, last_event

EventValue = tuple[str, int | None]  # an event's kind; of votes, which
Kinds = tuple[str, ...]
Columns = ReadOnlyColumnCollection[str, Any]
# What each kind of statement is about: of a user's about the same thing the latest counts
COUNTED_STATEMENTS: Mapping[Kinds, str] = {
    ("vote", "correction", "flag"): "answer_id",
    ("choice",): "comparison_id",
}
DEEDS: Kinds = ("regeneration", "copy")  # each counts


@dataclass
class _Counted:
    """The numbers up to an event. An erasure makes them worthless."""

    last_event: int = 0
    last_erasure: int = 0
    current: Counter[EventValue] = field(default_factory=Counter)


class Counters:
    """The counts of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._counted = _Counted()

    def counts(self) -> dict[str, int]:
        """The current numbers, by name. The first call reads every event, later ones new ones."""
        with self._lock, self._database.read() as connection:
            newest, erasure = last_event(connection), last_erasure(connection)
            if erasure != self._counted.last_erasure:
                self._counted = _Counted(last_erasure=erasure)
            if newest != self._counted.last_event:
                self._add(connection, newest)
            current = self._counted.current
            return {
                "turns": _size(connection, t.turns),
                "answers": _size(connection, t.answers),
                "votes": current["vote", 1] + current["vote", -1],
                "votes_up": current["vote", 1],
                "votes_down": current["vote", -1],
                "corrections": current["correction", None],
                "comparisons": current["choice", None],
                "flags": current["flag", None],
                "regenerations": current["regeneration", None],
                "copies": current["copy", None],
            }

    def _add(self, connection: Connection, newest: int) -> None:
        """Count the events from the last one counted to the newest."""
        counted, events = self._counted, t.events.c
        last, current = counted.last_event, counted.current
        fresh = and_(events.id > last, events.id <= newest)
        current.update(_said(connection, fresh, events.kind.in_(DEEDS)))
        for kinds, subject in COUNTED_STATEMENTS.items():
            current.update(_said(connection, fresh, _latest(kinds, subject, newest)))
            if last:
                current.subtract(_said(connection, _overtaken(kinds, subject, last, newest)))
        counted.last_event = newest


def _said(connection: Connection, *which: ColumnElement[bool]) -> Counter[EventValue]:
    """The number of events by kind and vote; a correction that takes one back has the vote 0."""
    events = t.events.c
    vote = case((events.correction == "", 0), else_=events.vote)
    query = select(events.kind, vote, func.count()).where(*which)
    rows = connection.execute(query.group_by(events.kind, vote)).all()
    return Counter({(kind, vote): count for kind, vote, count in rows})


def _latest(kinds: Kinds, subject: str, newest: int) -> ColumnElement[bool]:
    """Statements whose place no later one, up to the newest counted, has taken."""
    events, later = t.events.c, t.events.alias("later").c
    replaced = exists().where(
        _same(events, later, subject), later.id > events.id, later.id <= newest
    )
    return and_(events.kind.in_(kinds), ~replaced)


def _overtaken(kinds: Kinds, subject: str, last: int, newest: int) -> ColumnElement[bool]:
    """Statements that were current up to the last event counted, and are no longer."""
    new, old = t.events.alias("new"), t.events.alias("old")
    numbers = (
        select(func.max(old.c.id))
        .select_from(new.join(old, and_(_same(new.c, old.c, subject), old.c.id <= last)))
        .where(new.c.id > last, new.c.id <= newest, new.c.kind.in_(kinds))
        .group_by(old.c[subject], old.c.user_id, old.c.kind)
    )
    return t.events.c.id.in_(numbers)


def _same(one: Columns, other: Columns, subject: str) -> ColumnElement[bool]:
    """A condition: two events are the same user's sort of statement about the same subject."""
    return and_(
        one[subject] == other[subject], one.user_id == other.user_id, one.kind == other.kind
    )


def _size(connection: Connection, table: Table) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())
