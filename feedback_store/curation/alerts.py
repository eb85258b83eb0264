"""Alerts: votes that the operator should look at, with the text they are about.

An alert is derived from the votes each time. That somebody has looked at it is kept under the
digest of what it is about, so that it counts as new again once that has changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, delete, select

from engine.storage import digest_json
from feedback_store.curation.bursts import Alert, find_bursts
from feedback_store.curation.opposition import find_opposition
from feedback_store.examples.text_comparison import normalized
from feedback_store.examples.types import IMPORTED
from feedback_store.records import CurrentChoice
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database, insert_once
from feedback_store.storage.statements import choice_of, vote_of

ID_DIGITS = 16


class LookedAlerts:
    """The alerts of a store that were looked at, by whom and when."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def mark(self, alerts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the alerts with `looked_by` and `looked_at`, None where nobody has looked."""
        with self._database.read() as connection:
            rows = {row.alert_id: row for row in connection.execute(select(t.looked_alerts))}
        return [
            {
                **alert,
                "looked_by": row.looked_by if (row := rows.get(alert["id"])) else None,
                "looked_at": row.looked_at if row else None,
            }
            for alert in alerts
        ]

    def look_at(self, alert_id: str, actor: str) -> None:
        """Keep that `actor` has looked at an alert; who looked first stays."""
        row = {"alert_id": alert_id, "looked_by": actor, "looked_at": time.time()}
        with self._database.write() as connection:
            insert_once(connection, t.looked_alerts, row)

    def put_back(self, alert_id: str) -> None:
        """Let an alert be one that nobody has looked at."""
        with self._database.write() as connection:
            connection.execute(
                delete(t.looked_alerts).where(t.looked_alerts.c.alert_id == alert_id)
            )


def alert_id_of(alert: Alert) -> str:
    """Return the id of an alert, which changes with what the alert is about.

    That is the people and, of a burst, its votes. People of opposite wishes go on voting, so that
    of those the people alone count.
    """
    votes = [] if alert.kind == "opposed" else [alert.vote, alert.count, alert.begin]
    about = [alert.kind, sorted(alert.users), votes]
    return digest_json(["alert", about]).removeprefix("sha256:")[:ID_DIGITS]


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
        {
            **asdict(alert),
            "id": alert_id_of(alert),
            "users": list(alert.users),
            "text": texts[alert.answer_ids[0]],
        }
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
