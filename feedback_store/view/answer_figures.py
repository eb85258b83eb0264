"""Number and speed of the answers that the engine wrote in a period. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from sqlalchemy import ColumnElement, func, select

from feedback_store.examples.types import IMPORTED
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database

TIMED_ANSWERS = 200  # so that a look costs the same on a busy day


@dataclass(frozen=True, slots=True)
class AnswerFigures:
    """The answers to the questions of a period, and the medians of the newest `TIMED_ANSWERS`.

    A median is None where no answer of the period has ended.
    """

    answers: int
    tokens_per_second: float | None
    first_token_seconds: float | None


def read_answer_figures(database: Database, since: float) -> AnswerFigures:
    """Read the figures of answers to questions since a moment (seconds since 1970)."""
    answers, turns = t.answers.c, t.turns.c
    which: tuple[ColumnElement[bool], ...] = (
        turns.created_at >= since,
        answers.base_digest != IMPORTED,
    )
    joined = t.turns.join(t.answers, answers.turn_id == turns.id)
    timed = (
        select(
            answers.created_at,
            answers.first_token_at,
            answers.finished_at,
            answers.completion_tokens,
        )
        .select_from(joined)
        .where(*which, answers.first_token_at.is_not(None), answers.finished_at.is_not(None))
        .order_by(turns.created_at.desc())
        .limit(TIMED_ANSWERS)
    )
    with database.read() as connection:
        count = connection.execute(select(func.count()).select_from(joined).where(*which))
        total = int(count.scalar_one())
        rows = connection.execute(timed).all()
    speeds = [
        row.completion_tokens / (row.finished_at - row.first_token_at)
        for row in rows
        if row.completion_tokens and row.finished_at > row.first_token_at
    ]
    first = [row.first_token_at - row.created_at for row in rows]
    return AnswerFigures(
        total, median(speeds) if speeds else None, median(first) if first else None
    )
