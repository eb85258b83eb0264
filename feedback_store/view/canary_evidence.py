"""The answers and statements of the conversations that began since a moment, by release.

Reads only. Conversations that began before are left out with all that is said in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, Select, func, select

from feedback_store.records import OPERATOR
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.statements import current_statements

END_OF_TIME = 1e12  # in seconds since 1970
BLANK = " \t\r\n"
SaidKind = Literal["vote", "correction", "regeneration", "choice"]
SAID_OF_ANSWERS: tuple[SaidKind, ...] = ("vote", "correction", "regeneration")


@dataclass(frozen=True, slots=True)
class AnswerOutcome:
    """An answer that has ended, and how; times are in seconds since 1970."""

    id: str
    conversation_id: str
    adapter: str | None
    status: str
    is_empty: bool
    created_at: float
    first_token_at: float | None
    finished_at: float | None
    completion_tokens: int | None


@dataclass(frozen=True, slots=True)
class Said:
    """A person's current statement about an answer; `value` is a vote of 1 or -1, else None.

    Of a choice, `answer_id` is the answer that was chosen and `other_id` the other one; of a tie
    they are the left and the right one, and `is_tie` is true.
    """

    event_id: int
    conversation_id: str
    user_id: str
    kind: SaidKind
    answer_id: str
    value: int | None = None
    other_id: str | None = None
    is_tie: bool = False


@dataclass(frozen=True, slots=True)
class CanaryEvidence:
    """Answers in the order in which they were begun, and statements in that of their first ones."""

    answers: tuple[AnswerOutcome, ...]
    said: tuple[Said, ...]


def read_canary_evidence(
    database: Database, base: str, since: float, until: float = END_OF_TIME
) -> CanaryEvidence:
    """Read the conversations that began at or after `since`, on one base model (its digest), with
    what was answered and said up to `until`."""
    with database.read() as connection:
        answers = _read_answers(connection, base, since, until)
        said = [
            *_read_of_answers(connection, since, until),
            *_read_choices(connection, since, until),
        ]
    return CanaryEvidence(tuple(answers), tuple(sorted(said, key=lambda each: each.event_id)))


def _conversations_since(since: float) -> Select[tuple[str]]:
    turns = t.turns.c
    return (
        select(turns.conversation_id)
        .where(
            turns.conversation_id.in_(
                select(turns.conversation_id).where(turns.created_at >= since)
            )
        )
        .group_by(turns.conversation_id)
        .having(func.min(turns.created_at) >= since)
    )


def _read_answers(
    connection: Connection, base: str, since: float, until: float
) -> list[AnswerOutcome]:
    answers = t.answers.c
    query = (
        select(
            answers.id,
            t.turns.c.conversation_id,
            answers.adapter_digest,
            answers.status,
            (func.trim(answers.text, BLANK) == "").label("is_empty"),
            answers.created_at,
            answers.first_token_at,
            answers.finished_at,
            answers.completion_tokens,
        )
        .join(t.turns, t.turns.c.id == answers.turn_id)
        .where(
            answers.base_digest == base,
            answers.created_at <= until,
            t.turns.c.conversation_id.in_(_conversations_since(since)),
        )
        .order_by(answers.created_at, answers.id)
    )
    return [AnswerOutcome(*row) for row in connection.execute(query)]


def _read_of_answers(connection: Connection, since: float, until: float) -> list[Said]:
    """Votes, corrections and regenerations; of each answer and person the first one's number."""
    events = t.events.c
    query = (
        select(
            events.id,
            events.kind,
            events.answer_id,
            events.comparison_id,
            events.user_id,
            events.vote,
            events.correction,
            t.turns.c.conversation_id,
        )
        .join(t.answers, t.answers.c.id == events.answer_id)
        .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
        .where(
            events.kind.in_(SAID_OF_ANSWERS),
            events.user_id != OPERATOR,
            events.created_at <= until,
            t.turns.c.conversation_id.in_(_conversations_since(since)),
        )
        .order_by(events.id)
    )
    rows = connection.execute(query).mappings().all()
    first: dict[tuple[str, str, str], int] = {}
    for row in rows:
        first.setdefault((row["answer_id"], row["user_id"], row["kind"]), row["id"])
    return [
        Said(
            first[row["answer_id"], row["user_id"], row["kind"]],
            row["conversation_id"],
            row["user_id"],
            row["kind"],
            row["answer_id"],
            row["vote"],
        )
        for row in current_statements(rows)
        if row["vote"] != 0
    ]


def _read_choices(connection: Connection, since: float, until: float) -> list[Said]:
    events, compared = t.events.c, t.comparisons.c
    query = (
        select(
            events.id,
            events.kind,
            events.answer_id,
            events.comparison_id,
            events.user_id,
            events.correction,
            events.choice,
            compared.left_answer_id,
            compared.right_answer_id,
            t.turns.c.conversation_id,
        )
        .join(t.comparisons, compared.id == events.comparison_id)
        .join(t.turns, t.turns.c.id == compared.turn_id)
        .where(
            events.user_id != OPERATOR,
            events.created_at <= until,
            t.turns.c.conversation_id.in_(_conversations_since(since)),
        )
        .order_by(events.id)
    )
    rows = connection.execute(query).mappings().all()
    first: dict[tuple[str, str], int] = {}
    for row in rows:
        first.setdefault((row["comparison_id"], row["user_id"]), row["id"])
    found = []
    for row in current_statements(rows):
        left, right = row["left_answer_id"], row["right_answer_id"]
        chosen, other = (right, left) if row["choice"] == "right" else (left, right)
        found.append(
            Said(
                first[row["comparison_id"], row["user_id"]],
                row["conversation_id"],
                row["user_id"],
                "choice",
                chosen,
                None,
                other,
                is_tie=row["choice"] not in ("left", "right"),
            )
        )
    return found
