"""The queue of comparisons that wait for people: two alternatives each, blind.

Both answers of a comparison were written by the same policy at the same time, so that neither place
says anything of the other. What is asked first is what the policy is least sure of. Whoever asked
the question may judge it in the chat, the operator may judge every one; the first who does so
settles it. Knows tables; knows no engine and no page.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, func, insert, select, true, update

from engine.errors import Conflict, InvalidInput, UnknownId
from engine.messages import Message
from feedback_store.records import CHOICES, ChoiceValue, Comparison, StoredAnswer
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.events import add_event, event_values
from feedback_store.storage.evidence import answer_columns
from feedback_store.storage.store import FeedbackStore
from feedback_store.storage.turns import new_id

WITHDRAWN: ChoiceValue = "tie"  # of which nothing is learnt: a choice that was undone
STATES = ("waiting", "judged", "skipped")


@dataclass(frozen=True, slots=True)
class WaitingComparison:
    """Two answers to one prompt; the messages end with the question."""

    id: int
    user_id: str  # who asked
    conversation_id: str
    messages: tuple[Message, ...]
    first: StoredAnswer
    second: StoredAnswer
    preference: float
    entropy: float


class ComparisonQueue:
    """The comparisons that wait. `refusing` returns the people whose words may not be used."""

    def __init__(
        self, database: Database, store: FeedbackStore, refusing: Callable[[], Collection[str]]
    ) -> None:
        self._database = database
        self._store = store
        self._refusing = refusing

    def waiting(
        self,
        limit: int,
        *,
        live: str | None = None,
        asked_by: str | None = None,
        beside: Collection[int] = (),
    ) -> list[WaitingComparison]:
        """The comparisons to judge next: those of the live release, then by uncertainty.

        The rule is uncertainty sampling (Lewis and Gale 1994), as Ji et al. 2024 (Active Queries,
        sec. 4) use it for preferences: the predicted preference that is closest to 1/2 comes first.
        Where none is predicted (no release is live yet), all are 1/2, and the prompt on which the
        policy's entropy is highest comes first (Muldrew et al. 2024, sec. 3.1).
        `asked_by`: only one person's own; `beside`: those that the caller has already.
        """
        refusing, table = self._refusing(), t.waiting_comparisons.c
        written_live = (
            t.answers.c.adapter_digest.is_(None)
            if live is None
            else t.answers.c.adapter_digest == live
        )
        query = (
            _open()
            .join(t.answers, t.answers.c.id == table.first_answer_id)
            .where(table.id.not_in(list(beside)))
            .order_by(
                case((written_live, 0), else_=1),
                func.abs(table.preference - 0.5),
                table.entropy.desc(),
                table.id,
            )
        )
        if asked_by is not None:
            query = query.where(t.turns.c.user_id == asked_by)
        if refusing:
            query = query.where(t.turns.c.user_id.not_in(sorted(refusing)))
        with self._database.read() as connection:
            rows = connection.execute(query.limit(limit)).all()
            answers = _answers(connection, [i for row in rows for i in row[2:4]])
        return [self._comparison(row, answers) for row in rows]

    def counts(self) -> dict[str, int]:
        """The number of comparisons by state; those of deleted conversations do not wait."""
        outcome = t.waiting_comparisons.c.outcome
        settled = select(outcome, func.count()).where(outcome.is_not(None)).group_by(outcome)
        with self._database.read() as connection:
            found = {row[0]: int(row[1]) for row in connection.execute(settled).all()}
            rows = connection.execute(_open()).all()
        refusing = self._refusing()
        found["waiting"] = sum(row.user_id not in refusing for row in rows)
        return {state: found.get(state, 0) for state in STATES}

    def choose(
        self, waiting_id: int, judge: str, choice: ChoiceValue, *, asked_by: str | None = None
    ) -> None:
        """Store a person's choice; "left" is the first answer.

        `asked_by`: refuse other people's, with `UnknownId`. Raises `Conflict` where somebody has
        settled it already.
        """
        if choice not in CHOICES:
            raise InvalidInput(f"a choice is one of {', '.join(CHOICES)}")
        with self._database.write() as connection:
            row = _unsettled(connection, waiting_id, asked_by)
            comparison_id = _undone_by(connection, row, judge)
            if comparison_id is None:
                comparison_id = new_id()
                shown = Comparison(
                    comparison_id,
                    row["turn_id"],
                    row["first_answer_id"],
                    row["second_answer_id"],
                    judge,
                    time.time(),
                )
                connection.execute(insert(t.comparisons).values(asdict(shown)))
            _add_choice(connection, comparison_id, judge, choice)
            _settle(connection, waiting_id, "judged", comparison_id)
            if judge == row["user_id"]:
                sides = row["first_answer_id"], row["second_answer_id"]
                seen = t.alternatives.c.answer_id.in_(sides)
                connection.execute(update(t.alternatives).where(seen).values(shown=1))

    def skip(self, waiting_id: int, *, asked_by: str | None = None) -> None:
        """Ask nobody about a comparison any more; raises `Conflict` where it is settled."""
        with self._database.write() as connection:
            row = _unsettled(connection, waiting_id, asked_by)
            _settle(connection, waiting_id, "skipped", row["comparison_id"])

    def undo(self, waiting_id: int, judge: str) -> None:
        """Let a comparison wait again; the judge's own choice, if there is one, is withdrawn.

        Raises `UnknownId` where it is not settled, or was judged by somebody else.
        """
        table = t.waiting_comparisons.c
        query = (
            select(table.outcome, table.comparison_id, t.comparisons.c.user_id)
            .outerjoin(t.comparisons, t.comparisons.c.id == table.comparison_id)
            .where(table.id == waiting_id)
        )
        with self._database.write() as connection:
            row = connection.execute(query).one_or_none()
            if row is None or row.outcome is None or row.user_id not in (None, judge):
                raise UnknownId(f"no comparison {waiting_id}")
            if row.outcome == "judged" and row.user_id is not None:
                _add_choice(connection, row.comparison_id, judge, WITHDRAWN)
            _settle(connection, waiting_id, None, row.comparison_id)

    def _comparison(self, row: Any, answers: Mapping[str, StoredAnswer]) -> WaitingComparison:
        _, messages = self._store.shown_prompt(row.first_answer_id, row.user_id)
        return WaitingComparison(
            row.id,
            row.user_id,
            row.conversation_id,
            messages,
            answers[row.first_answer_id],
            answers[row.second_answer_id],
            row.preference,
            row.entropy,
        )


def _open() -> Select[Any]:
    """The query for the comparisons that wait, in conversations that are not deleted."""
    table = t.waiting_comparisons.c
    return (
        select(
            table.id,
            table.turn_id,
            table.first_answer_id,
            table.second_answer_id,
            table.preference,
            table.entropy,
            table.comparison_id,
            t.turns.c.user_id,
            t.turns.c.conversation_id,
        )
        .join(t.turns, t.turns.c.id == table.turn_id)
        .outerjoin(t.conversations, t.conversations.c.id == t.turns.c.conversation_id)
        .where(table.outcome.is_(None), t.conversations.c.deleted_at.is_(None))
    )


def _unsettled(connection: Connection, waiting_id: int, asked_by: str | None) -> Mapping[str, Any]:
    """A comparison that waits. Raises `Conflict` for one that is settled, else `UnknownId`."""
    table = t.waiting_comparisons.c
    own: ColumnElement[bool] = true() if asked_by is None else t.turns.c.user_id == asked_by
    row = connection.execute(_open().where(table.id == waiting_id, own)).mappings().one_or_none()
    if row is not None:
        return dict(row)
    settled = (
        select(table.id)
        .join(t.turns, t.turns.c.id == table.turn_id)
        .where(table.id == waiting_id, table.outcome.is_not(None), own)
    )
    if connection.execute(settled).one_or_none() is not None:
        raise Conflict("this comparison was judged or skipped meanwhile")
    raise UnknownId(f"no comparison {waiting_id}")


def _undone_by(connection: Connection, row: Mapping[str, Any], judge: str) -> str | None:
    """The comparison in which this judge chose before and undid it, or None."""
    undone = t.comparisons.c.id == row["comparison_id"], t.comparisons.c.user_id == judge
    return connection.execute(select(t.comparisons.c.id).where(*undone)).scalar_one_or_none()


def _add_choice(
    connection: Connection, comparison_id: str, judge: str, choice: ChoiceValue
) -> None:
    values = event_values("choice", judge, None, choice=choice)
    if not add_event(connection, t.comparisons, comparison_id, values):
        raise UnknownId(f"no comparison {comparison_id[:80]!r}")


def _settle(
    connection: Connection, waiting_id: int, outcome: str | None, comparison_id: str | None
) -> None:
    this = t.waiting_comparisons.c.id == waiting_id
    values = {"outcome": outcome, "comparison_id": comparison_id}
    connection.execute(update(t.waiting_comparisons).where(this).values(values))


def _answers(connection: Connection, answer_ids: Collection[str]) -> dict[str, StoredAnswer]:
    query = select(*answer_columns(StoredAnswer)).where(t.answers.c.id.in_(list(answer_ids)))
    return {row.id: StoredAnswer(*row) for row in connection.execute(query)}
