"""Writing a conversation's row in its person's list as turns and answers are added.

The functions run in the transaction of the turn or answer they follow. An API caller's turn is in
no list: of its conversation there is no row, and none of its texts is indexed.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from sqlalchemy import Connection, bindparam, insert, select, update

from engine.errors import UnknownId
from engine.excerpts import cut_at_word
from engine.messages import is_blank
from feedback_store.records import Turn
from feedback_store.storage import tables as t
from feedback_store.storage.search import add_document

MAX_DERIVED_TITLE_CHARS = 60
# Statements of every answer are made once: to build one takes as long as to execute it
CHANGE_CONVERSATION = update(t.conversations).where(t.conversations.c.id == bindparam("this"))
CHANGE_CONVERSATION_OF = update(t.conversations).where(
    t.conversations.c.id
    == select(t.turns.c.conversation_id).where(t.turns.c.id == bindparam("turn")).scalar_subquery()
)


def title_of(question: str) -> str:
    """The first line of a question that shows something, in at most 60 characters."""
    lines = (" ".join(line.split()) for line in question.splitlines())
    return cut_at_word(
        next((line for line in lines if not is_blank(line)), ""), MAX_DERIVED_TITLE_CHARS
    )


def require_own_or_new(connection: Connection, conversation_id: str, user_id: str) -> None:
    """Raise `UnknownId` for a conversation that is somebody else's or was deleted."""
    listed = t.conversations.c
    query = select(listed.user_id, listed.deleted_at).where(listed.id == conversation_id)
    row = connection.execute(query).one_or_none()
    if row is not None and (row.user_id != user_id or row.deleted_at is not None):
        raise UnknownId(f"no conversation {conversation_id[:80]!r}")


def list_turn(connection: Connection, turn: Turn, at: float) -> None:
    """Put a new turn's conversation in the list, on top; it is this person's, or new."""
    this = {"this": turn.conversation_id, "updated_at": at}
    known = connection.execute(CHANGE_CONVERSATION, this)
    if not known.rowcount:
        row = {
            "id": turn.conversation_id,
            "user_id": turn.user_id,
            "title": title_of(turn.question),
            "updated_at": at,
        }
        connection.execute(insert(t.conversations), row)
    add_document(connection, turn.conversation_id, turn.user_id, turn.question, turn_id=turn.id)


def show_new_answer(connection: Connection, turn_id: str, answer_id: str) -> None:
    """Show the branch that ends in an answer that is about to be made."""
    values = {"shown_answer_id": answer_id, "updated_at": time.time()}
    connection.execute(CHANGE_CONVERSATION_OF, {"turn": turn_id, **values})


def index_answers(connection: Connection, answer_ids: Iterable[str]) -> None:
    """Index the texts of answers; those of conversations in no list are left out."""
    listed = t.conversations.c
    query = (
        select(listed.id, listed.user_id, t.answers.c.text)
        .join(t.turns, t.turns.c.conversation_id == listed.id)
        .join(t.answers, t.answers.c.turn_id == t.turns.c.id)
    )
    for answer_id in answer_ids:
        row = connection.execute(query.where(t.answers.c.id == answer_id)).one_or_none()
        if row is not None:
            add_document(connection, row.id, row.user_id, row.text, answer_id=answer_id)


def continued_conversations(connection: Connection, answer_ids: Collection[str]) -> list[str]:
    """The conversations of those answers that had ended once and stream again."""
    query = (
        select(t.turns.c.conversation_id)
        .join(t.answers, t.answers.c.turn_id == t.turns.c.id)
        .where(t.answers.c.id.in_(answer_ids), t.answers.c.finished_at.is_not(None))
    )
    return list(connection.execute(query.distinct()).scalars())
