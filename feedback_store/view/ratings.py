"""The thumbs that one release got, in the order in which people gave them. Reads only."""

from __future__ import annotations

from sqlalchemy import func, select

from feedback_store.records import Rating
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database

NEWEST_EVENTS = 50_000  # older ones are not read, so that a look costs the same in a large store


def read_ratings(database: Database, base: str, adapter: str | None) -> list[Rating]:
    """The current thumbs on answers of one release, the oldest first.

    `base` is the base model's digest, `adapter` the bundle's; None is the base model itself.
    """
    events, answers = t.events.c, t.answers.c
    newest = select(func.coalesce(func.max(events.id), 0)).scalar_subquery()
    query = (
        select(events.id, events.answer_id, events.user_id, events.vote)
        .join(t.answers, answers.id == events.answer_id)
        .where(
            events.kind == "vote",
            events.id > newest - NEWEST_EVENTS,
            answers.base_digest == base,
            answers.adapter_digest.is_(None)
            if adapter is None
            else answers.adapter_digest == adapter,
        )
        .order_by(events.id)
    )
    with database.read() as connection:
        rows = connection.execute(query).all()
    current = {(row.answer_id, row.user_id): row for row in rows}
    found = (Rating(row.id, row.user_id, row.vote > 0) for row in current.values() if row.vote)
    return sorted(found, key=lambda rating: rating.event_id)
