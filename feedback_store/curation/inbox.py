"""The inbox of down-voted answers: each with its question, reasons, comment and correction.

The newest come first. That the operator has looked at one is kept with the vote: a later vote of
the same person on the same answer is new again. Knows tables; knows nothing of what is learnt.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, delete, func, or_, select

from engine.errors import UnknownId
from feedback_store.examples.types import IMPORTED
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database, insert_once
from feedback_store.storage.wanted import Wanted, contains, stated

INBOX_STATEMENTS = 20_000  # older ones are left out: a look costs the same in a large store


@dataclass(frozen=True, slots=True)
class DownVote:
    """A person's current thumb down on an answer, and what else they said of it.

    `adapter` is the release that wrote the answer, None the base model. Times are in seconds since
    1970; `looked_at` is None until the operator has looked at it.
    """

    event_id: int
    answer_id: str
    conversation_id: str
    user_id: str
    question: str
    answer: str
    adapter: str | None
    reasons: tuple[str, ...]
    comment: str
    correction: str
    at: float
    looked_at: float | None


class Inbox:
    """The down-voted answers of a store. Votes that came from files are left out."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(
        self, wanted: Wanted | None = None, *, looked_at: bool = False, first: int = 0, count: int
    ) -> tuple[list[DownVote], int]:
        """A page, the newest first, and the number of all that pass.

        With `looked_at` those that were looked at as well; `wanted` is a search in question,
        answer, comment, correction, reasons and people.
        """
        query = _down_votes(looked_at=looked_at)
        if wanted is not None and wanted.words:
            corrected = contains(wanted.words, _correction())
            in_texts = contains(wanted.words, t.turns.c.question, t.answers.c.text)
            query = query.where(or_(in_texts, stated(wanted), corrected))
        with self._database.read() as connection:
            total = connection.execute(select(func.count()).select_from(query.subquery()))
            newest = query.order_by(t.events.c.id.desc()).offset(first).limit(count)
            rows = connection.execute(newest).mappings().all()
            return [_down_vote(row) for row in rows], int(total.scalar_one())

    def count_new(self) -> int:
        """The number of those that nobody has looked at."""
        query = select(func.count()).select_from(_down_votes(looked_at=False).subquery())
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def look_at(self, event_id: int) -> None:
        """Keep that the operator has looked at a vote; raises `UnknownId` where there is none."""
        with self._database.write() as connection:
            query = select(t.events.c.id).where(
                t.events.c.id == event_id, t.events.c.kind == "vote"
            )
            if connection.execute(query).one_or_none() is None:
                raise UnknownId(f"no vote {event_id}")
            row = {"event_id": event_id, "looked_at": time.time()}
            insert_once(connection, t.looked_votes, row)

    def put_back(self, event_id: int) -> None:
        """Let a vote be one that nobody has looked at."""
        with self._database.write() as connection:
            connection.execute(delete(t.looked_votes).where(t.looked_votes.c.event_id == event_id))


def _correction() -> ColumnElement[Any]:
    """The newest correction of the voter's on the same answer; "" takes an earlier one back."""
    corrected = t.events.alias("corrected")
    return (
        select(corrected.c.correction)
        .where(
            corrected.c.answer_id == t.events.c.answer_id,
            corrected.c.user_id == t.events.c.user_id,
            corrected.c.kind == "correction",
        )
        .order_by(corrected.c.id.desc())
        .limit(1)
        .correlate(t.events)
        .scalar_subquery()
    )


def _down_votes(*, looked_at: bool) -> Select[Any]:
    """The query for the current thumbs down among the newest statements."""
    events, later = t.events.c, t.events.alias("later")
    newest = select(func.coalesce(func.max(events.id), 0)).scalar_subquery()
    is_changed = (
        select(later.c.id)
        .where(
            later.c.answer_id == events.answer_id,
            later.c.user_id == events.user_id,
            later.c.kind == "vote",
            later.c.id > events.id,
        )
        .correlate(t.events)
        .exists()
    )
    query = (
        select(
            events.id,
            events.answer_id,
            events.user_id,
            events.reasons,
            events.comment,
            events.created_at,
            t.turns.c.conversation_id,
            t.turns.c.question,
            t.answers.c.text,
            t.answers.c.adapter_digest,
            t.looked_votes.c.looked_at,
            _correction().label("corrected"),
        )
        .join(t.answers, t.answers.c.id == events.answer_id)
        .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
        .outerjoin(t.looked_votes, t.looked_votes.c.event_id == events.id)
        .where(
            events.kind == "vote",
            events.vote == -1,
            events.id > newest - INBOX_STATEMENTS,
            t.answers.c.base_digest != IMPORTED,
            ~is_changed,
        )
    )
    return query if looked_at else query.where(t.looked_votes.c.event_id.is_(None))


def _down_vote(row: RowMapping) -> DownVote:
    return DownVote(
        event_id=row["id"],
        answer_id=row["answer_id"],
        conversation_id=row["conversation_id"],
        user_id=row["user_id"],
        question=row["question"],
        answer=row["text"],
        adapter=row["adapter_digest"],
        reasons=tuple(row["reasons"] or ()),
        comment=row["comment"] or "",
        correction=row["corrected"] or "",
        at=row["created_at"],
        looked_at=row["looked_at"],
    )
