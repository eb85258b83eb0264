"""The view after rows were erased: nothing that was derived from them stays."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from sqlalchemy import Connection, delete, select

from feedback_store.storage import tables as t
from feedback_store.storage.database import batches
from feedback_store.storage.stale_conversations import mark_stale, unmark_stale
from feedback_store.view.candidates import (
    conversations_about,
    count_candidates,
    delete_candidates,
    topics_of,
)
from feedback_store.view.state import read_state, write_state

ALL_UNWEIGHED = 2**31  # more answers than anybody ever judged


def drop_derived(
    connection: Connection, conversation_ids: Collection[str], user_id: str | None = None
) -> None:
    """Delete what was derived from conversations, some or all of whose rows were erased.

    What is left of them, and what was a duplicate of theirs, is derived anew at the next refresh;
    so is the trust in each user. `user_id`: whom the state, too, is to forget.
    """
    alike = conversations_about(connection, topics_of(connection, conversation_ids))
    touched = {*alike, *conversation_ids}
    delete_candidates(connection, touched)
    unmark_stale(connection, touched)
    left: set[str] = set()
    for some in batches(touched):
        connection.execute(delete(t.verdicts).where(t.verdicts.c.conversation_id.in_(some)))
        query = select(t.turns.c.conversation_id).where(t.turns.c.conversation_id.in_(some))
        left.update(connection.execute(query.distinct()).scalars())
    mark_stale(connection, left)
    state = read_state(connection)
    write_state(
        connection,
        replace(
            state,
            version=state.version + 1,
            refusing=tuple(user for user in state.refusing if user != user_id),
            unweighed=ALL_UNWEIGHED,
            counts=count_candidates(connection),
        ),
    )
