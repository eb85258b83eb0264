"""The thumbs that a release got, in the order in which people gave them, or by day. Reads only."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import case, func, select

from feedback_store.records import Rating
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database

NEWEST_EVENTS = 50_000  # older ones are not read, so that a look costs the same in a large store


@dataclass(frozen=True, slots=True)
class DayRatings:
    """The thumbs on answers of one release that were given on one day of UTC.

    `adapter` is the release's bundle, None the base model; `day` is "2026-11-30".
    """

    adapter: str | None
    day: str
    up: int
    down: int


@dataclass(frozen=True, slots=True)
class ReleaseRatings:
    """The current thumbs on answers of one release; `adapter` None is the base model."""

    adapter: str | None
    up: int
    down: int


def count_ratings_by_release(database: Database, base: str) -> list[ReleaseRatings]:
    """The current thumbs by release, the release with the newest thumb first.

    `base` is the base model's digest. Of the store's events the newest `NEWEST_EVENTS` are read.
    """
    events, answers = t.events.c, t.answers.c
    newest = select(func.coalesce(func.max(events.id), 0)).scalar_subquery()
    current = (
        select(func.max(events.id).label("id"))
        .where(events.kind == "vote", events.id > newest - NEWEST_EVENTS)
        .group_by(events.answer_id, events.user_id)
        .subquery()
    )
    query = (
        select(
            answers.adapter_digest,
            func.sum(case((events.vote > 0, 1), else_=0)).label("up"),
            func.sum(case((events.vote < 0, 1), else_=0)).label("down"),
        )
        .join(current, current.c.id == events.id)
        .join(t.answers, answers.id == events.answer_id)
        .where(answers.base_digest == base, events.vote != 0)
        .group_by(answers.adapter_digest)
        .order_by(func.max(events.id).desc())
    )
    with database.read() as connection:
        rows = connection.execute(query).all()
    return [ReleaseRatings(row.adapter_digest, int(row.up), int(row.down)) for row in rows]


def count_ratings_by_day(database: Database, base: str) -> list[DayRatings]:
    """The current thumbs by release and day, the oldest day first.

    `base` is the base model's digest. Of the store's events the newest `NEWEST_EVENTS` are read.
    """
    events, answers = t.events.c, t.answers.c
    newest = select(func.coalesce(func.max(events.id), 0)).scalar_subquery()
    query = (
        select(
            events.answer_id, events.user_id, events.vote, events.created_at, answers.adapter_digest
        )
        .join(t.answers, answers.id == events.answer_id)
        .where(
            events.kind == "vote", events.id > newest - NEWEST_EVENTS, answers.base_digest == base
        )
        .order_by(events.id)
    )
    with database.read() as connection:
        rows = connection.execute(query).all()
    counted: dict[tuple[str, str | None], list[int]] = defaultdict(lambda: [0, 0])
    for row in {(row.answer_id, row.user_id): row for row in rows}.values():
        if row.vote:
            day = datetime.fromtimestamp(row.created_at, UTC).strftime("%Y-%m-%d")
            counted[day, row.adapter_digest][row.vote < 0] += 1
    return [
        DayRatings(adapter, day, up, down)
        for (day, adapter), (up, down) in sorted(
            counted.items(), key=lambda item: (item[0][0], item[0][1] or "")
        )
    ]


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
