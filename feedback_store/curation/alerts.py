"""Alerts: votes that the operator should look at, with the text they are about."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, select

from feedback_store.curation.bursts import find_bursts
from feedback_store.curation.opposition import find_opposition
from feedback_store.examples.text_comparison import normalized
from feedback_store.examples.types import IMPORTED
from feedback_store.records import CurrentChoice
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.statements import choice_of, vote_of


def find_alerts(database: Database, since: float) -> list[dict[str, Any]]:
    """Bursts, brigades and opposite wishes since a moment (seconds since 1970), JSON-ready.

    They come in order of time, the opposite wishes last. Votes that came from files are left out:
    they all bear the time of the import.
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
        choices, compared = _choices_since(connection, since)
    votes = [vote_of(row) for row in rows]
    texts = {row["answer_id"]: row["text"] for row in rows} | compared
    found = [
        *find_bursts(votes, {a: normalized(text) for a, text in texts.items()}),
        *find_opposition([*votes, *choices], {a: len(text) for a, text in texts.items()}),
    ]
    return [
        {**asdict(alert), "users": list(alert.users), "text": texts[alert.answer_ids[0]]}
        for alert in found
    ]


def _choices_since(
    connection: Connection, since: float
) -> tuple[list[CurrentChoice], dict[str, str]]:
    """The choices since a moment, and the texts of the compared answers by their ids."""
    left, right = t.answers.alias("left_answer"), t.answers.alias("right_answer")
    query = (
        select(
            t.events,
            t.comparisons.c.left_answer_id,
            t.comparisons.c.right_answer_id,
            left.c.text.label("left_text"),
            right.c.text.label("right_text"),
        )
        .join(t.comparisons, t.comparisons.c.id == t.events.c.comparison_id)
        .join(left, left.c.id == t.comparisons.c.left_answer_id)
        .join(right, right.c.id == t.comparisons.c.right_answer_id)
        .where(
            t.events.c.kind == "choice",
            t.events.c.created_at >= since,
            left.c.base_digest != IMPORTED,
        )
    )
    rows = connection.execute(query).mappings().all()
    texts = {
        row[f"{side}_answer_id"]: row[f"{side}_text"] for row in rows for side in ("left", "right")
    }
    return [choice_of(row) for row in rows], texts
