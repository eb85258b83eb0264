"""Decisions about training data: exclusions, edits, gold conversations, consent.

Decisions and consents are only ever added; the latest counts. Knows tables; knows nothing of how
examples are made.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select

from engine.errors import Conflict, InvalidInput, UnknownId
from engine.messages import clean_text, require_text
from feedback_store.examples.split import split_of
from feedback_store.examples.types import Pair, TrainingExample
from feedback_store.records import DecisionAction, ExampleDecision
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database, insert_once
from feedback_store.storage.import_writer import MAX_USER_ID_CHARS

MAX_NOTE_CHARS = 4_000


class Curation:
    """Stores the decisions of the operator and of the users."""

    def __init__(self, database: Database, *, consent_by_default: bool = True) -> None:
        self._database = database
        self._consent_by_default = consent_by_default

    # Decisions

    def exclude(self, example: TrainingExample, note: str = "") -> None:
        """Never train on an example; the note says why."""
        self._decide(example, "exclude", note)

    def take_back(self, example_id: str, note: str = "") -> None:
        """Take back what was decided about an example; raises `UnknownId` where nothing was."""
        with self._database.write() as connection:
            query = (
                select(t.decisions.c.conversation_id, t.decisions.c.user_ids)
                .where(t.decisions.c.example_id == example_id)
                .order_by(t.decisions.c.id.desc())
                .limit(1)
            )
            decided = connection.execute(query).one_or_none()
            if decided is None:
                raise UnknownId(f"nothing was decided about {example_id[:80]!r}")
            origin = decided.conversation_id, decided.user_ids
            _insert_decision(connection, example_id, *origin, "include", note)

    def edit(
        self,
        example: TrainingExample,
        *,
        chosen: str | None = None,
        rejected: str | None = None,
        note: str = "",
    ) -> None:
        """Train on other words: `chosen` stands for the completion of an example without a pair.

        What is None stays as it is.
        """
        if chosen is None and rejected is None:
            raise InvalidInput("an edit needs new words")
        if rejected is not None and not isinstance(example, Pair):
            raise InvalidInput("only a pair has a rejected side")
        for text in (chosen, rejected):
            if text is not None:
                require_text(text, what="edit")
        self._decide(example, "edit", note, chosen, rejected)

    def decisions(self) -> dict[str, ExampleDecision]:
        """The latest decision about each example."""
        with self._database.read() as connection:
            return read_decisions(connection)

    def _decide(
        self,
        example: TrainingExample,
        action: DecisionAction,
        note: str,
        chosen: str | None = None,
        rejected: str | None = None,
    ) -> None:
        with self._database.write() as connection:
            _insert_decision(
                connection,
                example.id,
                example.origin.conversation_id,
                example.origin.user_ids,
                action,
                note,
                chosen,
                rejected,
            )

    # Gold

    def mark_gold(self, conversation_id: str) -> None:
        """Never train on a held-out conversation: it becomes part of the yardstick.

        Raises `Conflict` for one on the training side, which could prove nothing any more.
        """
        if split_of(conversation_id) == "train":
            raise Conflict(
                "this conversation is on the training side; only held-out ones can be gold"
            )
        with self._database.write() as connection:
            known = select(t.turns.c.id).where(t.turns.c.conversation_id == conversation_id)
            if connection.execute(known.limit(1)).one_or_none() is None:
                raise UnknownId(f"no conversation {conversation_id[:80]!r}")
            insert_once(
                connection,
                t.gold_conversations,
                {"conversation_id": conversation_id, "created_at": time.time()},
            )

    def unmark_gold(self, conversation_id: str) -> None:
        """Put a conversation back among the held-out ones."""
        with self._database.write() as connection:
            connection.execute(
                delete(t.gold_conversations).where(
                    t.gold_conversations.c.conversation_id == conversation_id
                )
            )

    def gold(self) -> frozenset[str]:
        """The conversations that are gold."""
        with self._database.read() as connection:
            return frozenset(
                connection.execute(select(t.gold_conversations.c.conversation_id)).scalars()
            )

    # Consent

    def set_consent(self, user_id: str, allowed: bool) -> None:
        """Store whether a person's words may be trained on, from now on and for what is there."""
        clean_text(user_id, what="user's id", limit_chars=MAX_USER_ID_CHARS)
        with self._database.write() as connection:
            connection.execute(
                insert(t.consents).values(
                    user_id=user_id, allowed=int(allowed), created_at=time.time()
                )
            )

    def consents(self, user_id: str) -> bool:
        """Return whether a person's words may be trained on."""
        query = (
            select(t.consents.c.allowed)
            .where(t.consents.c.user_id == user_id)
            .order_by(t.consents.c.id.desc())
            .limit(1)
        )
        with self._database.read() as connection:
            said = connection.execute(query).scalar_one_or_none()
        return self._consent_by_default if said is None else bool(said)

    def consenting(self, user_ids: Collection[str]) -> frozenset[str]:
        """Those of the given users whose words may be trained on."""
        with self._database.read() as connection:
            answers = _read_consents(connection, t.consents.c.user_id.in_(user_ids))
        return frozenset(user for user in user_ids if answers.get(user, self._consent_by_default))

    def refusing(self) -> frozenset[str]:
        """The users whose words may not be trained on."""
        with self._database.read() as connection:
            answers = _read_consents(connection)
            if self._consent_by_default:
                return frozenset(user for user, allowed in answers.items() if not allowed)
            everybody = select(t.turns.c.user_id).union(select(t.events.c.user_id))
            people = set(connection.execute(everybody).scalars())
        return frozenset(user for user in people if not answers.get(user, False))


def read_decisions(connection: Connection, until: int | None = None) -> dict[str, ExampleDecision]:
    """The latest decision about each example; `until`: of those up to one of a number."""
    latest = select(func.max(t.decisions.c.id)).group_by(t.decisions.c.example_id)
    if until is not None:
        latest = latest.where(t.decisions.c.id <= until)
    query = select(t.decisions).where(t.decisions.c.id.in_(latest))
    return {
        row.example_id: ExampleDecision(
            row.example_id, row.action, row.chosen, row.rejected, row.note, row.created_at
        )
        for row in connection.execute(query)
    }


def decided_since(connection: Connection, number: int) -> tuple[set[str], int]:
    """Conversations with decisions newer than one, and the number of the newest now."""
    newest = connection.execute(select(func.coalesce(func.max(t.decisions.c.id), 0))).scalar_one()
    query = select(t.decisions.c.conversation_id).where(t.decisions.c.id > number)
    return set(connection.execute(query).scalars()), int(newest)


def _read_consents(connection: Connection, *which: ColumnElement[bool]) -> dict[str, bool]:
    """The newest statement of each person on their consent, of those who made one."""
    latest = select(func.max(t.consents.c.id)).where(*which).group_by(t.consents.c.user_id)
    said = select(t.consents.c.user_id, t.consents.c.allowed).where(t.consents.c.id.in_(latest))
    return {row.user_id: bool(row.allowed) for row in connection.execute(said)}


def _insert_decision(
    connection: Connection,
    example_id: str,
    conversation_id: str,
    user_ids: Sequence[str],
    action: DecisionAction,
    note: str,
    chosen: str | None = None,
    rejected: str | None = None,
) -> None:
    connection.execute(
        insert(t.decisions).values(
            example_id=example_id,
            conversation_id=conversation_id,
            user_ids=list(user_ids),
            action=action,
            chosen=chosen,
            rejected=rejected,
            note=clean_text(note, what="note", limit_chars=MAX_NOTE_CHARS),
            created_at=time.time(),
        )
    )
