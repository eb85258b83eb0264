"""Queries of the store, for tests of pages."""

from __future__ import annotations

from typing import Any

from app.service import Service
from tests.support.waiting import wait_until


def rows(service: Service, query: str, *values: Any) -> list[dict[str, Any]]:
    """Return the rows of a query; `?` stands for a value."""
    with service.workspace.database.read() as connection:
        found = connection.exec_driver_sql(query, values).mappings()
        return [dict(row) for row in found]


def answer(service: Service, answer_id: str) -> dict[str, Any]:
    """Return a stored answer."""
    (row,) = rows(service, "SELECT * FROM answers WHERE id = ?", answer_id)
    return row


def said_of(service: Service, answer_id: str, columns: str = "kind") -> list[tuple[Any, ...]]:
    """Return the statements on an answer, in order."""
    query = f"SELECT {columns} FROM events WHERE answer_id = ? ORDER BY id"
    return [tuple(row.values()) for row in rows(service, query, answer_id)]


def wait_until_said(service: Service, answer_id: str, *kinds: str) -> None:
    """Wait until an answer has exactly these statements."""
    wait_until(lambda: said_of(service, answer_id) == [(kind,) for kind in kinds])


def wait_until_stored(service: Service, **wanted: int) -> dict[str, int]:
    """Wait until the store has the given counts; returns all counts."""
    store = service.workspace.store
    wait_until(lambda: store.counts().items() >= wanted.items())
    return store.counts()
