"""Adding an event in one statement, which also checks whose answer or comparison it is about.

The statements are built once: votes come by the thousand, and building one takes longer than
running it. Knows tables alone.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import Connection, Executable, Table, bindparam, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite

from engine.messages import clean_text
from feedback_store.storage import tables as t

SAID = ("vote", "reasons", "comment", "correction", "choice")
EVENT_COLUMNS = ("idempotency_key", "kind", "user_id", "created_at", *SAID)


def event_values(
    kind: str, user_id: str, idempotency_key: str | None, **said: Any
) -> dict[str, Any]:
    """An event's columns, apart from what it is about."""
    key = clean_text(idempotency_key or uuid.uuid4().hex, limit_chars=64)
    return {
        **dict.fromkeys(SAID),
        **said,
        "idempotency_key": key,
        "kind": kind,
        "user_id": user_id,
        "created_at": time.time(),
    }


def add_event(
    connection: Connection, about: Table, about_id: str, values: Mapping[str, Any]
) -> bool:
    """Add an event about an answer or a comparison of the event's user.

    Returns whether it was added: not when it is no such user's, or was added before.
    """
    statement = _statement(about.name, connection.dialect.name)
    return connection.execute(statement, {**values, "about_id": about_id}).rowcount == 1


@cache
def _statement(about: str, dialect: str) -> Executable:
    """INSERT ... SELECT ... ON CONFLICT DO NOTHING."""
    values = [bindparam(name, type_=t.events.c[name].type) for name in EVENT_COLUMNS]
    if about == t.answers.name:
        found = select(*values, t.answers.c.id, literal_column("NULL")).join_from(
            t.answers, t.turns, t.turns.c.id == t.answers.c.turn_id
        )
        own = t.answers.c.id, t.turns.c.user_id
    else:
        found = select(*values, literal_column("NULL"), t.comparisons.c.id)
        own = t.comparisons.c.id, t.comparisons.c.user_id
    found = found.where(own[0] == bindparam("about_id"), own[1] == bindparam("user_id"))
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return (
        insert(t.events)
        .from_select([*EVENT_COLUMNS, "answer_id", "comparison_id"], found)
        .on_conflict_do_nothing()
        # Else SQLAlchemy does not keep PostgreSQL's count of inserted rows, and -1 stands for it
        .execution_options(preserve_rowcount=True)
    )
