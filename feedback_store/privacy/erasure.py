"""Erasure of a person, of conversations, and of what is old: rows and snapshot entries.

The deletion of the rows and a record of what is still to be done are one transaction, so that a
crash leaves nothing half-forgotten for good. The record knows a person by a digest alone, and no
conversation once the erasure is done. What a model learnt from them is found by lineage on the
floors above. Knows tables and snapshots; knows no bundles.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    Table,
    delete,
    insert,
    or_,
    select,
    update,
)

from engine.errors import InvalidInput, UnknownId
from engine.storage import digest_json, list_digests
from feedback_store.ai_feedback.ai_pairs import AiPair
from feedback_store.examples.types import TrainingExample
from feedback_store.snapshots.snapshot import Snapshot, open_snapshot, rewrite
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.statements import judged_conversations
from feedback_store.view.erased import drop_derived


@dataclass(frozen=True, slots=True)
class Erasure:
    """One erasure: its receipt as far as it is known, and what it is about."""

    number: int
    receipt: Mapping[str, Any]
    person: str | None  # `person_digest` of who is forgotten
    conversation_ids: frozenset[str]  # in which they asked, that are deleted or too old
    people: Mapping[str, list[str]] = field(default_factory=dict)  # see the table
    deleted: str | None = None  # `deletion_digest` of the conversations that are deleted

    @property
    def unlearns(self) -> bool:
        """Return whether what was learnt from it goes, too: unless it is retention."""
        return self.person is not None or self.deleted is not None

    def covers(self, example: TrainingExample | AiPair) -> bool:
        """Return whether an example rests on what is erased."""
        return example.origin.conversation_id in self.conversation_ids or (
            self.person is not None and self.person in _people_of(example)
        )


@lru_cache(maxsize=100_000)
def person_digest(user_id: str) -> str:
    """The digest by which an erasure knows a person."""
    return digest_json(["person", user_id])


def deletion_digest(conversation_ids: Iterable[str]) -> str:
    """The digest by which an erasure knows deleted conversations until it is done."""
    return digest_json(["conversations", *sorted(set(conversation_ids))])


def forget_user(
    database: Database, user_id: str, documents: int = 0, *, known: bool = False
) -> Erasure:
    """Delete everything a person asked, got and said.

    `documents` is the number of their documents, which are deleted already, for the receipt.
    Raises `UnknownId` where there is nothing, unless the person is `known` (by an account).
    """
    own_turns = t.turns.c.user_id == user_id
    own = select(t.turns.c.conversation_id).where(own_turns)
    rows: dict[str, int] = {"documents": documents} if documents else {}
    with database.write() as connection:
        conversations = frozenset(connection.execute(own).scalars())
        judged = judged_conversations(connection, t.events.c.user_id == user_id)
        _delete(connection, rows, t.decisions, t.decisions.c.conversation_id.in_(own))
        _forget_in_decisions(connection, rows, user_id)
        _delete_turns(connection, rows, own_turns)
        _delete_listed(connection, rows, t.conversations.c.user_id == user_id)
        said = select(t.comparisons.c.id).where(t.comparisons.c.user_id == user_id)
        _delete(
            connection,
            rows,
            t.events,
            or_(t.events.c.user_id == user_id, t.events.c.comparison_id.in_(said)),
        )
        _wait_again(connection, said)
        _delete(connection, rows, t.comparisons, t.comparisons.c.user_id == user_id)
        _delete(connection, rows, t.consents, t.consents.c.user_id == user_id)
        _delete(connection, rows, t.prompts, t.prompts.c.user_id == user_id)
        _delete(connection, rows, t.tool_consents, t.tool_consents.c.user_id == user_id)
        # What they removed of others' answers; of their own it is gone already
        _delete(connection, rows, t.unused_examples, t.unused_examples.c.user_id == user_id)
        if not any(rows.values()) and not known:
            raise UnknownId(f"nothing is known of a user {user_id[:80]!r}")
        _delete_orphans(connection, rows)
        drop_derived(connection, {*conversations, *judged}, user_id)
        return _begin(connection, rows, conversations, person=person_digest(user_id))


def forget_conversations(
    database: Database, conversation_ids: Collection[str], *, deleted_before: float | None = None
) -> Erasure:
    """Delete conversations with everything that anybody said in them.

    With `deleted_before`, only those that their person deleted before that moment (seconds since
    1970) and has not restored. Raises `UnknownId` where there is none of them.
    """
    rows: dict[str, int] = {}
    with database.write() as connection:
        wanted = sorted(set(conversation_ids))
        if deleted_before is not None:
            listed = t.conversations.c
            due = select(listed.id).where(listed.id.in_(wanted), listed.deleted_at < deleted_before)
            wanted = sorted(connection.execute(due).scalars())
        which = t.turns.c.conversation_id.in_(wanted)
        query = select(t.turns.c.conversation_id).where(which)
        found = frozenset(connection.execute(query.distinct()).scalars())
        if not found:
            raise UnknownId(f"no conversation {', '.join(wanted)[:80]!r}")
        _delete(connection, rows, t.decisions, t.decisions.c.conversation_id.in_(wanted))
        _delete_turns(connection, rows, which)
        _delete_orphans(connection, rows)
        drop_derived(connection, found)
        return _begin(connection, rows, found, deleted=deletion_digest(wanted))


def forget_before(database: Database, at: float) -> Erasure | None:
    """Retention: delete the conversations that ended before a moment (seconds since 1970).

    A conversation is kept whole or not at all, since its later prompts repeat its earlier turns.
    None where nothing is that old.
    """
    young = select(t.turns.c.conversation_id).where(t.turns.c.created_at >= at)
    old = t.turns.c.conversation_id.not_in(young)
    rows: dict[str, int] = {}
    with database.write() as connection:
        query = select(t.turns.c.conversation_id).where(old)
        conversations = frozenset(connection.execute(query.distinct()).scalars())
        if not conversations:
            return None
        _delete(connection, rows, t.decisions, t.decisions.c.conversation_id.in_(query))
        _delete_turns(connection, rows, old)
        _delete_orphans(connection, rows)
        drop_derived(connection, conversations)
        return _begin(connection, rows, conversations)


def rewrite_snapshots(root: Path, erasure: Erasure) -> Erasure:
    """Publish each snapshot that holds what is erased anew, without it; the old one stays.

    The receipt's `snapshots` say what stands for which: a digest, or None where nothing to train
    on is left, or where the snapshot cannot be read, so that nobody knows what it holds.
    """
    replaced = dict(erasure.receipt["snapshots"])
    people = dict(erasure.people)
    for digest in list_digests(root):
        try:
            snapshot = open_snapshot(root, digest)
        except InvalidInput:
            replaced[digest] = None
            continue
        covered = [example for example in _examples(snapshot) if erasure.covers(example)]
        if covered:
            replaced[digest] = rewrite(root, snapshot, keep=lambda e: not erasure.covers(e))
            if not erasure.unlearns:
                people[digest] = sorted({person for e in covered for person in _people_of(e)})
    return replace(erasure, receipt={**erasure.receipt, "snapshots": replaced}, people=people)


def save_erasure(database: Database, erasure: Erasure, *, done: bool = False) -> None:
    """Keep what is known of an erasure; once it is done, whom it was about is kept no longer."""
    with database.write() as connection:
        if done:
            _forget_in_erasures(connection, erasure.person)
        connection.execute(
            update(t.erasures)
            .where(t.erasures.c.id == erasure.number)
            .values(
                receipt=dict(erasure.receipt),
                people=dict(erasure.people) or None,
                unfinished=None if done else _about(erasure),
            )
        )


def list_erasures(database: Database) -> list[Erasure]:
    """Every erasure, the oldest first."""
    with database.read() as connection:
        rows = connection.execute(select(t.erasures).order_by(t.erasures.c.id)).mappings()
        return [_erasure_of(row) for row in rows]


def unfinished_erasures(database: Database) -> list[Erasure]:
    """Erasures that a crash broke off, the oldest first."""
    query = select(t.erasures).where(t.erasures.c.unfinished.is_not(None)).order_by(t.erasures.c.id)
    with database.read() as connection:
        return [_erasure_of(row) for row in connection.execute(query).mappings()]


def _examples(snapshot: Snapshot) -> list[TrainingExample]:
    return [
        e for split in (snapshot.train, snapshot.heldout, snapshot.gold) for e in split.examples
    ]


def _people_of(example: TrainingExample | AiPair) -> set[str]:
    return {person_digest(user_id) for user_id in example.origin.user_ids}


# The record


def _begin(
    connection: Connection,
    rows: dict[str, int],
    conversation_ids: frozenset[str],
    *,
    person: str | None = None,
    deleted: str | None = None,
) -> Erasure:
    receipt = {"rows": rows, "conversations": len(conversation_ids), "snapshots": {}, "bundles": []}
    begun = Erasure(0, receipt, person, conversation_ids, deleted=deleted)
    done = connection.execute(
        insert(t.erasures).values(receipt=receipt, unfinished=_about(begun), created_at=time.time())
    )
    (number,) = done.inserted_primary_key or (0,)
    return replace(begun, number=int(number))


def _erasure_of(row: RowMapping) -> Erasure:
    about = row["unfinished"] or {"person": None, "conversation_ids": []}
    return Erasure(
        row["id"],
        row["receipt"],
        about["person"],
        frozenset(about["conversation_ids"]),
        row["people"] or {},
        about.get("deleted"),
    )


def _about(erasure: Erasure) -> dict[str, Any]:
    return {
        "person": erasure.person,
        "deleted": erasure.deleted,
        "conversation_ids": sorted(erasure.conversation_ids),
    }


def _forget_in_erasures(connection: Connection, person: str | None) -> None:
    """Remove a person from what earlier erasures know."""
    query = select(t.erasures).where(t.erasures.c.people.is_not(None))
    for row in connection.execute(query).mappings().all():
        earlier = _erasure_of(row)
        people = {s: [p for p in each if p != person] for s, each in earlier.people.items()}
        if people != earlier.people:
            this = t.erasures.c.id == earlier.number
            connection.execute(update(t.erasures).where(this).values(people=people))


# Rows


def _forget_in_decisions(connection: Connection, rows: dict[str, int], user_id: str) -> None:
    """Delete the decisions about examples that rest on one person alone.

    One about an example that rests on others, too, still holds; its note may name the person.
    """
    query = select(t.decisions.c.id, t.decisions.c.user_ids)
    for decision in connection.execute(query).all():
        if user_id not in decision.user_ids:
            continue
        this = t.decisions.c.id == decision.id
        others = [user for user in decision.user_ids if user != user_id]
        if others:
            connection.execute(update(t.decisions).where(this).values(user_ids=others, note=""))
        else:
            _delete(connection, rows, t.decisions, this)


def _delete_turns(connection: Connection, rows: dict[str, int], which: ColumnElement[bool]) -> None:
    """Delete turns with everything that hangs on them, whoever it is from."""
    turns = select(t.turns.c.id).where(which)
    answers = select(t.answers.c.id).where(t.answers.c.turn_id.in_(turns))
    comparisons = select(t.comparisons.c.id).where(t.comparisons.c.turn_id.in_(turns))
    _delete(
        connection,
        rows,
        t.events,
        or_(t.events.c.answer_id.in_(answers), t.events.c.comparison_id.in_(comparisons)),
    )
    _delete(connection, rows, t.comparisons, t.comparisons.c.turn_id.in_(turns))
    _delete(connection, rows, t.waiting_comparisons, t.waiting_comparisons.c.turn_id.in_(turns))
    _delete(connection, rows, t.alternatives, t.alternatives.c.answer_id.in_(answers))
    for about_answers in (t.unused_examples, t.shared_examples):
        _delete(connection, rows, about_answers, about_answers.c.answer_id.in_(answers))
    _delete(connection, rows, t.answers, t.answers.c.turn_id.in_(turns))
    _delete(connection, rows, t.turns, which)


def _wait_again(connection: Connection, comparisons: Select[Any]) -> None:
    """Let the comparisons that a person judged wait for somebody else."""
    judged = t.waiting_comparisons.c.comparison_id.in_(comparisons)
    fresh = {"outcome": None, "comparison_id": None}
    connection.execute(update(t.waiting_comparisons).where(judged).values(fresh))


def _delete_listed(
    connection: Connection, rows: dict[str, int], which: ColumnElement[bool]
) -> None:
    """Delete conversations from the list and the search."""
    listed = select(t.conversations.c.id).where(which)
    _delete(connection, rows, t.search_documents, t.search_documents.c.conversation_id.in_(listed))
    _delete(connection, rows, t.conversations, which)


def _delete_orphans(connection: Connection, rows: dict[str, int]) -> None:
    """Conversations of which no turn is left, marks and templates that nothing refers to."""
    conversations = select(t.turns.c.conversation_id)
    _delete_listed(connection, rows, t.conversations.c.id.not_in(conversations))
    _delete(
        connection,
        rows,
        t.gold_conversations,
        t.gold_conversations.c.conversation_id.not_in(conversations),
    )
    used = select(t.turns.c.template_hash)
    _delete(connection, rows, t.templates, t.templates.c.hash.not_in(used))


def _delete(
    connection: Connection, rows: dict[str, int], table: Table, which: ColumnElement[bool]
) -> None:
    deleted = connection.execute(delete(table).where(which)).rowcount
    rows[table.name] = rows.get(table.name, 0) + deleted
