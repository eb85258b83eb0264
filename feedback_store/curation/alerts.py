"""Alerts: votes that the operator should look at, with the text they are about."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import select

from feedback_store.curation.bursts import find_bursts
from feedback_store.examples.text_comparison import normalized
from feedback_store.examples.types import IMPORTED
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.statements import vote_of


def find_alerts(database: Database, since: float) -> list[dict[str, Any]]:
    """Bursts and brigades since a moment (seconds since 1970), in order of time, JSON-ready.

    Votes that came from files are left out: they all bear the time of the import.
    """
    query = (
        select(t.events, t.answers.c.text)
        .join(t.answers, t.answers.c.id == t.events.c.answer_id)
        .where(
            t.events.c.kind == "vote",
            t.events.c.vote != 0,
            t.events.c.created_at >= since,
            t.answers.c.base_digest != IMPORTED,
        )
    )
    with database.read() as connection:
        rows = connection.execute(query).mappings().all()
    texts = {row["answer_id"]: row["text"] for row in rows}
    found = find_bursts(
        [vote_of(row) for row in rows], {a: normalized(text) for a, text in texts.items()}
    )
    return [
        {**asdict(alert), "users": list(alert.users), "text": texts[alert.answer_ids[0]]}
        for alert in found
    ]
