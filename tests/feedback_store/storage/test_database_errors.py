"""Errors of either database quote no values: they are people's words, and errors are logged."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, insert
from sqlalchemy.exc import SQLAlchemyError

from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from feedback_store.storage.tables import templates, turns

WORDS = "canary words"
TURN: dict[str, Any] = {
    "id": "t1",
    "conversation_id": WORDS,
    "user_id": "ann",
    "question": WORDS,
    "mode": "plain",
    "template_hash": "h",
    "prompt": [{"role": "user", "content": WORDS}],
    "created_at": 0.0,
}


def no_such_template(connection: Connection) -> None:
    connection.execute(insert(turns), [TURN])


def no_user(connection: Connection) -> None:
    connection.execute(insert(turns), [{**TURN, "user_id": None}])


def twice(connection: Connection) -> None:
    connection.execute(insert(templates), [{"hash": WORDS, "definition": {}}] * 2)


def no_number(connection: Connection) -> None:
    connection.execute(insert(turns), [{**TURN, "created_at": {}}])


@pytest.mark.parametrize("fail", [no_such_template, no_user, twice, no_number])
def test_an_error_does_not_quote_what_was_to_be_stored(
    store: FeedbackStore, database: Database, fail: Callable[[Connection], None]
) -> None:
    with pytest.raises(SQLAlchemyError) as failed, database.write() as connection:
        fail(connection)
    assert told(failed.value)
    assert WORDS not in "".join(told(failed.value))


def told(error: BaseException) -> Sequence[str]:
    """All that a log would say of it."""
    return traceback.format_exception(error)
