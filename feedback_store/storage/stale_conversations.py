"""The conversations whose examples must be derived anew. Knows one table alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import Connection, delete, select

from feedback_store.storage import tables as t
from feedback_store.storage.database import batches, insert_once


def mark_stale(connection: Connection, conversation_ids: Iterable[str]) -> None:
    """Have the examples of conversations derived anew."""
    rows = [{"conversation_id": conversation_id} for conversation_id in sorted(conversation_ids)]
    if rows:
        insert_once(connection, t.stale, *rows)


def stale_after(connection: Connection, conversation_id: str, count: int) -> list[str]:
    """The next `count` stale conversations after one, in order."""
    query = select(t.stale.c.conversation_id).where(t.stale.c.conversation_id > conversation_id)
    query = query.order_by(t.stale.c.conversation_id).limit(count)
    return list(connection.execute(query).scalars())


def unmark_stale(connection: Connection, conversation_ids: Collection[str]) -> None:
    """Note that the examples of conversations are up to date."""
    for some in batches(conversation_ids):
        connection.execute(delete(t.stale).where(t.stale.c.conversation_id.in_(some)))
