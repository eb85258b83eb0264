"""A person's own examples: the answers that they corrected or like, for their own questions.

A correction acts with the next question, long before anything is trained. Knows consent; knows
nothing of examples that are shared.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator

from sqlalchemy import Connection, func, select

from feedback_store.curation.decisions import Curation
from feedback_store.personal.example_pool import (
    MAX_EXAMPLES,
    ExamplePool,
    FeedbackExample,
    current_events,
    fetch_examples,
)
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database

MAX_PEOPLE = 32  # whose examples are kept ready; one takes up to two megabytes
# Newest event, how many there are; removed answers; answers being made and deleted conversations
_Version = tuple[int, int, frozenset[str], frozenset[str]]


class OwnExamples:
    """Everybody's own examples, each person's for that person."""

    def __init__(self, database: Database, curation: Curation) -> None:
        self._database = database
        self._curation = curation
        self._pools: OrderedDict[str, tuple[_Version, ExamplePool]] = (
            OrderedDict()
        )  # used last: last
        self._lock = threading.Lock()

    def of(self, user_id: str) -> tuple[FeedbackExample, ...]:
        """A person's examples, the newest statement first; none without their consent."""
        pool = self._pool(user_id)
        return () if pool is None else pool.examples

    def ranked(self, user_id: str, question: str) -> Iterator[FeedbackExample]:
        """A person's examples that are like a question, the most similar first."""
        pool = self._pool(user_id)
        return iter(()) if pool is None else pool.ranked(question)

    def _pool(self, user_id: str) -> ExamplePool | None:
        """Their examples of now, read anew only where something changed; None without consent."""
        if not self._curation.consents(user_id):
            with self._lock:
                self._pools.pop(user_id, None)
            return None
        with self._lock:
            known = self._pools.pop(user_id, None)
        with self._database.read() as connection:
            version = _version(connection, user_id)
            if known is None or known[0] != version:
                pool = _refreshed(connection, user_id, None if known is None else known[1])
            else:
                pool = known[1]
        with self._lock:
            self._pools[user_id] = version, pool
            while len(self._pools) > MAX_PEOPLE:
                self._pools.popitem(last=False)
        return pool


def removed_by(connection: Connection, user_id: str) -> frozenset[str]:
    """The answers that a person wants shown as examples no more."""
    query = select(t.unused_examples.c.answer_id).where(t.unused_examples.c.user_id == user_id)
    return frozenset(connection.execute(query).scalars())


def _version(connection: Connection, user_id: str) -> _Version:
    """The state that a person's examples depend on.

    A statement adds to the newest number; an erasure takes from the count, since numbers are never
    given again; a statement about an answer in the making counts from the answer's end.
    """
    said = select(func.coalesce(func.max(t.events.c.id), 0), func.count(t.events.c.id))
    newest, count = connection.execute(said.where(t.events.c.user_id == user_id)).one()
    streaming = (
        select(t.answers.c.id)
        .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
        .where(t.answers.c.status == "streaming", t.turns.c.user_id == user_id)
    )
    deleted = select(t.conversations.c.id).where(
        t.conversations.c.user_id == user_id, t.conversations.c.deleted_at.is_not(None)
    )
    unsettled = frozenset(connection.execute(streaming.union_all(deleted)).scalars())
    return newest, count, removed_by(connection, user_id), unsettled


def _refreshed(connection: Connection, user_id: str, known: ExamplePool | None) -> ExamplePool:
    """The pool of now. Texts are read, and indexed, only where other events count than before."""
    current = current_events(connection, t.events.c.user_id == user_id)
    event_ids = [event["id"] for event in current[:MAX_EXAMPLES]]
    if known is not None and known.event_ids == event_ids:
        return known
    return ExamplePool(event_ids, fetch_examples(connection, event_ids))
