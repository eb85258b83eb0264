"""The export of everything that is stored of one person, as a document that they can keep.

Their conversations with every answer, what they and others said of them, what the operator decided
about it, their consent, the examples that they took out or that are shared with everybody, the
prompts that they keep, and the tools that they allow. What is derived from these (the index of the
search, the training set) is not repeated. Knows tables.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, or_, select

from feedback_store.storage import tables as t
from feedback_store.storage.database import Database

PERSON_FORMAT = "burnish-person/1"
TableRows = list[dict[str, Any]]


def personal_data(database: Database, user_id: str) -> dict[str, Any]:
    """A person's data, JSON-ready; times are seconds since 1970."""
    with database.read() as connection:
        own = select(t.turns.c.conversation_id).where(t.turns.c.user_id == user_id)
        answers = (
            select(t.answers.c.id)
            .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
            .where(t.turns.c.user_id == user_id)
        )
        return {
            "format": PERSON_FORMAT,
            "made_at": time.time(),
            "person": user_id,
            "consents": _rows(connection, t.consents, t.consents.c.user_id == user_id),
            "examples_removed": _rows(
                connection, t.unused_examples, t.unused_examples.c.user_id == user_id
            ),
            "examples_shared": _rows(
                connection, t.shared_examples, t.shared_examples.c.answer_id.in_(answers)
            ),
            "prompts": _rows(connection, t.prompts, t.prompts.c.user_id == user_id),
            "tools_allowed": _rows(
                connection, t.tool_consents, t.tool_consents.c.user_id == user_id
            ),
            "conversations": _conversations(connection, user_id),
            "statements": _statements(connection, user_id),
            "decisions": [
                {name: value for name, value in row.items() if name != "user_ids"}  # others' names
                for row in _rows(connection, t.decisions, t.decisions.c.conversation_id.in_(own))
            ],
        }


def _conversations(connection: Connection, user_id: str) -> TableRows:
    """The oldest first. One that is not listed (an import, a program's) has its turns alone."""
    own = t.turns.c.user_id == user_id
    turn_ids = select(t.turns.c.id).where(own)
    answers = _by(_rows(connection, t.answers, t.answers.c.turn_id.in_(turn_ids)), "turn_id")
    compared = _unnamed(
        _rows(connection, t.comparisons, t.comparisons.c.turn_id.in_(turn_ids)), user_id
    )
    comparisons = _by(compared, "turn_id")
    used = select(t.turns.c.template_hash).where(own)
    templates = {
        row["hash"]: row["definition"]
        for row in _rows(connection, t.templates, t.templates.c.hash.in_(used))
    }
    listed = _by(_rows(connection, t.conversations, t.conversations.c.user_id == user_id), "id")
    turns = _by(_rows(connection, t.turns, own), "conversation_id")
    return [
        {
            **(listed[conversation_id][0] if conversation_id in listed else {}),
            "id": conversation_id,
            "turns": [
                {
                    **turn,
                    "template": templates[turn["template_hash"]],
                    "answers": answers.get(turn["id"], []),
                    "comparisons": comparisons.get(turn["id"], []),
                }
                for turn in each
            ],
        }
        for conversation_id, each in turns.items()
    ]


def _statements(connection: Connection, user_id: str) -> TableRows:
    """The person's statements, and everybody's on their answers, in the order they were made."""
    turn_ids = select(t.turns.c.id).where(t.turns.c.user_id == user_id)
    answers = select(t.answers.c.id).where(t.answers.c.turn_id.in_(turn_ids))
    comparisons = select(t.comparisons.c.id).where(t.comparisons.c.turn_id.in_(turn_ids))
    about = or_(
        t.events.c.user_id == user_id,
        t.events.c.answer_id.in_(answers),
        t.events.c.comparison_id.in_(comparisons),
    )
    return _unnamed(_rows(connection, t.events, about), user_id)


def _unnamed(rows: TableRows, user_id: str) -> TableRows:
    """The rows without the ids of others, such as a reviewer who compared two answers."""
    return [
        {k: value for k, value in row.items() if k != "user_id" or value == user_id} for row in rows
    ]


def _rows(connection: Connection, table: Table, which: ColumnElement[bool]) -> TableRows:
    """The rows of a table, the oldest first, without the columns that say nothing."""
    oldest = [table.c[name] for name in ("created_at", "approved_at", "id") if name in table.c]
    query = select(table).where(which).order_by(*oldest)
    return [
        {name: value for name, value in row.items() if value is not None}
        for row in connection.execute(query).mappings()
    ]


def _by(rows: TableRows, name: str) -> Mapping[str, Sequence[dict[str, Any]]]:
    found: dict[str, TableRows] = defaultdict(list)
    for row in rows:
        found[row[name]].append(row)
    return found
