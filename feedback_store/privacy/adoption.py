"""A browser's person becomes an account's: what they asked, got and said moves to its id.

What rests on ids moves along: the search index, decisions about corrections, whose ids name the
author, and what earlier erasures know of people. The training set is derived anew. Snapshots are
frozen; their examples are found by the conversation when the person is forgotten. Knows tables.
"""

from __future__ import annotations

import time
import uuid

from sqlalchemy import Connection, Table, delete, func, insert, select, update

from feedback_store.examples.types import correction_ids
from feedback_store.privacy.erasure import person_digest
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database, insert_once
from feedback_store.storage.search import Hit, add_document, read_hits
from feedback_store.storage.statements import judged_conversations
from feedback_store.view.erased import drop_derived

OWNED = (t.turns, t.conversations, t.comparisons, t.events, t.consents, t.prompts)


def adoptable_conversations(database: Database, user_id: str) -> int:
    """Return how many conversations a person has in their list."""
    own = t.conversations.c.user_id == user_id, t.conversations.c.deleted_at.is_(None)
    query = select(func.count()).select_from(t.conversations).where(*own)
    with database.read() as connection:
        return int(connection.execute(query).scalar_one())


def adopt(database: Database, old: str, new: str) -> None:
    """Give everything that is a person's to another id, in one transaction.

    Whoever of the two refused that their words are trained on refuses for both.
    """
    with database.write() as connection:
        refuses = 0 in (_consent(connection, old), _consent(connection, new))
        asked = select(t.turns.c.conversation_id).where(t.turns.c.user_id == old).distinct()
        conversations = set(connection.execute(asked).scalars())
        conversations.update(judged_conversations(connection, t.events.c.user_id == old))
        _move_decisions(connection, old, new)
        _separate_idempotency_keys(connection, old, new)
        for table in OWNED:
            connection.execute(update(table).where(table.c.user_id == old).values(user_id=new))
        for table in (t.unused_examples, t.tool_consents):
            _move_choices(connection, table, old, new)
        if refuses:
            row = {"user_id": new, "allowed": 0, "created_at": time.time()}
            connection.execute(insert(t.consents).values(row))
        _index_anew(connection, conversations, new)
        _move_in_erasures(connection, old, new)
        drop_derived(connection, conversations, old)


def _consent(connection: Connection, user_id: str) -> int | None:
    """Return 1 or 0 as the person said at last, None if they said nothing."""
    said = t.consents.c
    query = select(said.allowed).where(said.user_id == user_id).order_by(said.id.desc()).limit(1)
    return connection.execute(query).scalar_one_or_none()


def _move_decisions(connection: Connection, old: str, new: str) -> None:
    corrected = select(t.events.c.answer_id).where(
        t.events.c.user_id == old, t.events.c.kind == "correction"
    )
    renamed = {
        before: after
        for answer_id in connection.execute(corrected.distinct()).scalars()
        for before, after in zip(
            correction_ids(answer_id, old), correction_ids(answer_id, new), strict=True
        )
    }
    decided = t.decisions.c
    for row in connection.execute(select(decided.id, decided.example_id, decided.user_ids)).all():
        if old in row.user_ids:
            users = dict.fromkeys(new if user == old else user for user in row.user_ids)
            values = {
                "user_ids": list(users),
                "example_id": renamed.get(row.example_id, row.example_id),
            }
            connection.execute(update(t.decisions).where(decided.id == row.id).values(values))


def _separate_idempotency_keys(connection: Connection, old: str, new: str) -> None:
    """Give the old person's statements other keys where both used one, as no two may be alike."""
    events = t.events.c
    used = select(events.idempotency_key).where(events.user_id == new)
    both = select(events.id).where(events.user_id == old, events.idempotency_key.in_(used))
    for event_id in connection.execute(both).scalars().all():
        this = update(t.events).where(events.id == event_id)
        connection.execute(this.values(idempotency_key=uuid.uuid4().hex))


def _move_choices(connection: Connection, table: Table, old: str, new: str) -> None:
    """Move the rows of a table of which each person has one for each thing they chose."""
    which = table.c.user_id == old
    rows = connection.execute(select(table).where(which)).mappings().all()
    if rows:
        insert_once(connection, table, *({**row, "user_id": new} for row in rows))
        connection.execute(delete(table).where(which))


def _index_anew(connection: Connection, conversation_ids: set[str], user_id: str) -> None:
    """Index the texts under their new person, by whose key alone they are found."""
    documents, listed = t.search_documents.c, t.conversations.c
    for conversation_id in sorted(conversation_ids):
        query = select(documents.turn_id, documents.answer_id).where(
            documents.conversation_id == conversation_id
        )
        hits = [
            Hit(conversation_id, *row)
            for row in connection.execute(query.order_by(documents.id)).all()
        ]
        texts = read_hits(connection, hits)
        title = select(listed.title).where(listed.id == conversation_id)
        for hit in hits:
            about = hit.answer_id or hit.turn_id
            said = texts[about] if about else connection.execute(title).scalar_one()
            ids = {"turn_id": hit.turn_id, "answer_id": hit.answer_id}
            add_document(connection, conversation_id, user_id, said, **ids)


def _move_in_erasures(connection: Connection, old: str, new: str) -> None:
    """Let what retention took from snapshots be found when the account is forgotten."""
    before, after = person_digest(old), person_digest(new)
    query = select(t.erasures.c.id, t.erasures.c.people).where(t.erasures.c.people.is_not(None))
    for number, people in connection.execute(query).all():
        moved = {
            snapshot: sorted({after if person == before else person for person in each})
            for snapshot, each in people.items()
        }
        if moved != people:
            this = update(t.erasures).where(t.erasures.c.id == number)
            connection.execute(this.values(people=moved))
