"""Log-ins: a random token in the browser's cookie, and its digest here. Knows no cookies.

A session ends when it is ended, when it was not used for `IDLE_DAYS`, or with its account.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Table, delete, insert, select, update

from engine.errors import UnknownId
from feedback_store.accounts import tables as t
from feedback_store.accounts.passwords import new_secret, secret_digest
from feedback_store.accounts.person import Person
from feedback_store.storage.database import Database

IDLE_DAYS = 30


@dataclass(frozen=True, slots=True)
class LoginSession:
    """One browser in which an account is signed in."""

    id: str
    account_id: str
    used_on: str
    created_at: float


class LoginSessions:
    """The sessions of all accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, account_id: str) -> str:
        """Begin a session; returns the token that proves it. Sessions that are over are deleted."""
        token, now = new_secret(), time.time()
        row = {"id": uuid.uuid4().hex, "digest": secret_digest(token), "account_id": account_id}
        with self._database.write() as connection:
            connection.execute(
                delete(t.login_sessions).where(t.login_sessions.c.used_on < _oldest_day())
            )
            connection.execute(
                insert(t.login_sessions).values(**row, used_on=day_of(now), created_at=now)
            )
        return token

    def person(self, token: str) -> Person | None:
        """Return whose session a token proves; None if it is over or its account is disabled."""
        sessions, accounts = t.login_sessions.c, t.accounts.c
        query = (
            select(sessions.id, sessions.used_on, accounts.id, accounts.name, accounts.role)
            .join(t.accounts, accounts.id == sessions.account_id)
            .where(
                sessions.digest == secret_digest(token),
                sessions.used_on >= _oldest_day(),
                accounts.disabled_at.is_(None),
            )
        )
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        session_id, used_on, account_id, name, role = row
        note_use(self._database, t.login_sessions, session_id, used_on)
        return Person(account_id, role, name=name, session_id=session_id)

    def of(self, account_id: str) -> Sequence[LoginSession]:
        """Return an account's sessions that are not over, the newest first."""
        sessions = t.login_sessions.c
        query = (
            select(sessions.id, sessions.account_id, sessions.used_on, sessions.created_at)
            .where(sessions.account_id == account_id, sessions.used_on >= _oldest_day())
            .order_by(sessions.created_at.desc())
        )
        with self._database.read() as connection:
            return [LoginSession(**row) for row in connection.execute(query).mappings()]

    def end(self, session_id: str, account_id: str) -> None:
        """End a session; raises `UnknownId` for one that the account does not have."""
        sessions = t.login_sessions.c
        which = sessions.id == session_id, sessions.account_id == account_id
        with self._database.write() as connection:
            if connection.execute(delete(t.login_sessions).where(*which)).rowcount == 0:
                raise UnknownId("there is no such session")

    def end_all(self, account_id: str, *, but: str | None = None) -> int:
        """End an account's sessions, but for one; returns how many."""
        with self._database.write() as connection:
            return end_sessions(connection, account_id, but=but)


def end_sessions(connection: Connection, account_id: str, *, but: str | None = None) -> int:
    """End an account's sessions in a transaction of the caller's; returns how many."""
    sessions = t.login_sessions.c
    which = sessions.account_id == account_id, sessions.id != (but or "")
    return connection.execute(delete(t.login_sessions).where(*which)).rowcount


def note_use(database: Database, table: Table, row_id: str, used_on: str | None) -> None:
    """Note in a row that it was used today, unless it was noted already."""
    today = day_of(time.time())
    if used_on != today:
        with database.write() as connection:
            connection.execute(update(table).where(table.c.id == row_id).values(used_on=today))


def day_of(at: float) -> str:
    """Return the day of a moment (seconds since 1970), in UTC."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def _oldest_day() -> str:
    return (datetime.fromtimestamp(time.time(), UTC) - timedelta(days=IDLE_DAYS)).date().isoformat()
