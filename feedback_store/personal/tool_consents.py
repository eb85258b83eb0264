"""The tools that a person lets answers call.

A consent names a tool and a digest of what it was then: a tool that says something else of itself
since is one that the person has not seen. Knows tables; knows no tools.
"""

from __future__ import annotations

import time

from sqlalchemy import ColumnElement, delete, select

from feedback_store.storage import tables as t
from feedback_store.storage.database import Database, insert_once


class ToolConsents:
    """The consents of every person, one person at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, user_id: str) -> dict[str, str]:
        """Return the digests of the tools that a person allows, by name."""
        rows = t.tool_consents.c
        query = select(rows.tool, rows.digest).where(rows.user_id == user_id)
        with self._database.read() as connection:
            return {row.tool: row.digest for row in connection.execute(query)}

    def allow(self, user_id: str, tool: str, digest: str) -> None:
        """Allow a tool as it is now."""
        row = {"user_id": user_id, "tool": tool, "digest": digest, "created_at": time.time()}
        with self._database.write() as connection:
            connection.execute(delete(t.tool_consents).where(_is(user_id, tool)))
            insert_once(connection, t.tool_consents, row)

    def refuse(self, user_id: str, tool: str) -> None:
        """Allow a tool no longer."""
        with self._database.write() as connection:
            connection.execute(delete(t.tool_consents).where(_is(user_id, tool)))


def _is(user_id: str, tool: str) -> ColumnElement[bool]:
    return (t.tool_consents.c.user_id == user_id) & (t.tool_consents.c.tool == tool)
