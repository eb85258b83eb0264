"""The audit log: what operators did, who, when and to what. Nothing is changed or deleted in it.

It holds ids: a name is looked up when the log is read, so that whoever is forgotten is not named.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import insert, select

from feedback_store.accounts import tables as t
from feedback_store.storage.database import Database

MAX_SUBJECT_CHARS = 128


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act. `actor` and `subject` are names where the ids are known accounts'."""

    at: float
    actor: str
    action: str
    subject: str


class AuditLog:
    """The log of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, actor: str, action: str, subject: str) -> None:
        """Append an act: the ids of who did it and of what it was done to."""
        row = {"at": time.time(), "actor": actor, "subject": subject[:MAX_SUBJECT_CHARS]}
        with self._database.write() as connection:
            connection.execute(insert(t.audit).values(action=action, **row))

    def entries(self, limit: int = 100) -> Sequence[AuditEntry]:
        """Return the newest acts, the newest first."""
        log = t.audit.c
        query = select(log.at, log.actor, log.action, log.subject).order_by(log.id.desc())
        with self._database.read() as connection:
            names = {
                row.id: row.name
                for row in connection.execute(select(t.accounts.c.id, t.accounts.c.name))
            }
            rows = connection.execute(query.limit(limit)).all()
        return [
            AuditEntry(at, names.get(actor, actor), action, names.get(subject, subject))
            for at, actor, action, subject in rows
        ]
