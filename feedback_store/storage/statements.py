"""Reading statements: the judgements of people, which of them are current, and their values.

Current is, of each user's statements about the same thing, the latest of each kind. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import ColumnElement, Connection, RowMapping, or_, select

from feedback_store.records import CurrentChoice, CurrentCorrection, CurrentVote
from feedback_store.storage import tables as t

JUDGEMENTS = ("vote", "correction", "choice", "flag")
WITHDRAWABLE = ("vote", "correction", "choice")


def current_statements(events: Iterable[RowMapping]) -> list[RowMapping]:
    """The current ones of events that are given in the order of their numbers.

    Each has at least the columns `answer_id`, `comparison_id`, `user_id`, `kind` and `correction`.
    A vote of 0 is current, too: it says that the user has cleared an earlier one. A correction
    without words takes an earlier one back, and is none.
    """
    latest = {
        (event["answer_id"], event["comparison_id"], event["user_id"], event["kind"]): event
        for event in events
    }
    return [each for each in latest.values() if each["kind"] != "correction" or each["correction"]]


def read_own_statements(
    connection: Connection, answer_id: str, conversation_id: str, user_id: str
) -> list[RowMapping]:
    """A user's current votes, corrections and choices about an answer of a conversation.

    A choice has the two answers.
    """
    events, compared = t.events.c, t.comparisons.c
    about_it = select(t.events).where(events.answer_id == answer_id, events.user_id == user_id)
    beside_others = (
        select(t.events, compared.left_answer_id, compared.right_answer_id)
        .join(t.comparisons, compared.id == events.comparison_id)
        .join(t.turns, t.turns.c.id == compared.turn_id)
        .where(
            t.turns.c.conversation_id == conversation_id,
            events.user_id == user_id,
            or_(compared.left_answer_id == answer_id, compared.right_answer_id == answer_id),
        )
    )
    rows = [
        *connection.execute(about_it.order_by(events.id)).mappings().all(),
        *connection.execute(beside_others.order_by(events.id)).mappings().all(),
    ]
    return [each for each in current_statements(rows) if each["kind"] in WITHDRAWABLE]


def read_judgements(
    connection: Connection, which: ColumnElement[bool], until: int | None = None
) -> list[RowMapping]:
    """Read all judgements on certain turns, in the order of their numbers; `until`: up to an event.

    Each has its `turn_id`, and a choice the two answers. The kinds are chosen here and not in the
    query, which would then read every vote there is.
    """
    about_answers = (
        select(t.events, t.answers.c.turn_id)
        .join(t.answers, t.answers.c.id == t.events.c.answer_id)
        .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
        .where(which)
    )
    compared = t.comparisons.c
    about_comparisons = (
        select(t.events, compared.turn_id, compared.left_answer_id, compared.right_answer_id)
        .join(t.comparisons, compared.id == t.events.c.comparison_id)
        .join(t.turns, t.turns.c.id == compared.turn_id)
        .where(which)
    )
    rows = [
        *connection.execute(about_answers).mappings().all(),
        *connection.execute(about_comparisons).mappings().all(),
    ]
    said = [r for r in rows if r["kind"] in JUDGEMENTS and (until is None or r["id"] <= until)]
    return sorted(said, key=lambda r: int(r["id"]))


def judged_conversations(connection: Connection, which: ColumnElement[bool]) -> list[str]:
    """The conversations in which certain events are judgements, sorted."""
    about_answers = (
        select(t.turns.c.conversation_id)
        .join(t.answers, t.answers.c.turn_id == t.turns.c.id)
        .join(t.events, t.events.c.answer_id == t.answers.c.id)
        .where(which, t.events.c.kind.in_(JUDGEMENTS))
    )
    about_comparisons = (
        select(t.turns.c.conversation_id)
        .join(t.comparisons, t.comparisons.c.turn_id == t.turns.c.id)
        .join(t.events, t.events.c.comparison_id == t.comparisons.c.id)
        .where(which)
    )
    return sorted(connection.execute(about_answers.union(about_comparisons)).scalars())


def vote_of(event: RowMapping) -> CurrentVote:
    """An event of kind "vote" as a value."""
    return CurrentVote(
        event_id=event["id"],
        answer_id=event["answer_id"],
        user_id=event["user_id"],
        vote=event["vote"],
        at=event["created_at"],
        reasons=tuple(event["reasons"] or ()),
        comment=event["comment"] or "",
    )


def correction_of(event: RowMapping) -> CurrentCorrection:
    """An event of kind "correction" as a value."""
    return CurrentCorrection(
        event_id=event["id"],
        answer_id=event["answer_id"],
        user_id=event["user_id"],
        text=event["correction"],
        at=event["created_at"],
    )


def choice_of(event: RowMapping) -> CurrentChoice:
    """An event of kind "choice", as `read_judgements` reads it, as a value."""
    return CurrentChoice(
        event_id=event["id"],
        left_answer_id=event["left_answer_id"],
        right_answer_id=event["right_answer_id"],
        user_id=event["user_id"],
        choice=event["choice"],
        at=event["created_at"],
    )
