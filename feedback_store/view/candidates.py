"""The table of candidates: the examples of each conversation, and the status of each.

Derived, and kept in the database so that no process has to read everything again. Holds no texts:
they are derived anew from the evidence when somebody looks. Knows the table; the rules by which
candidates are made and chosen are those of `examples`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from feedback_store.examples.rules import OVER_CAP
from feedback_store.examples.types import SetAside, TrainingExample
from feedback_store.storage import tables as t
from feedback_store.storage.database import batches
from feedback_store.view.state import StatusCounts

SET_ASIDE = "set_aside"  # the status of what is not trained on
Item = TrainingExample | SetAside  # what a candidate stands for


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row; the table says what its columns mean."""

    conversation_id: str
    key: str
    kind: str
    source: str
    topic: bytes
    label: int
    first_event: int
    users: str
    status: str
    reason: str

    @property
    def is_distinct(self) -> bool:
        """Return whether it is trained on, or would be but for its users' shares."""
        return self.status != SET_ASIDE or self.reason == OVER_CAP

    @property
    def user_ids(self) -> Sequence[str]:
        """The users whose share it counts for."""
        return split_users(self.users)


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A stored row as it was, and as it is to be; `row_id` is its number."""

    row_id: int
    before: Candidate
    after: Candidate


def split_users(users: str) -> Sequence[str]:
    """The users in the column `users`."""
    return users.split("\n") if users else ()


# Changes


def replace_candidates(
    connection: Connection, conversation_ids: Collection[str], rows: Sequence[Candidate]
) -> None:
    """Store the candidates of conversations in the place of all that they had."""
    delete_candidates(connection, conversation_ids)
    if rows:
        connection.execute(insert(t.candidates), [t.row_of(row) for row in rows])


def delete_candidates(connection: Connection, conversation_ids: Collection[str]) -> None:
    """Delete the candidates of conversations."""
    for some in batches(conversation_ids):
        connection.execute(delete(t.candidates).where(t.candidates.c.conversation_id.in_(some)))


def write_changes(connection: Connection, changes: Sequence[StatusChange]) -> None:
    """Write the new status and reason of rows."""
    if changes:
        this = update(t.candidates).where(t.candidates.c.id == bindparam("row_id"))
        connection.execute(
            this.values(status=bindparam("new_status"), reason=bindparam("new_reason")),
            [
                {"row_id": c.row_id, "new_status": c.after.status, "new_reason": c.after.reason}
                for c in changes
            ],
        )


# Queries


def select_candidates(*where: ColumnElement[bool]) -> Select[Any]:
    """The query for some rows, to be given to `fetch_candidates`."""
    columns = (t.candidates.c[name] for name in Candidate.__dataclass_fields__)
    return select(*columns).where(*where)


def select_by_status(status: str, reason: str | None = None) -> Select[Any]:
    """The query for the rows of a status, with one reason or any, in the order people spoke."""
    columns = t.candidates.c
    query = select_candidates(columns.status == status)
    if reason is not None:
        query = query.where(columns.reason == reason)
    return query.order_by(columns.first_event, columns.id)


def fetch_candidates(connection: Connection, query: Select[Any]) -> list[Candidate]:
    """The rows of such a query."""
    return [Candidate(*row) for row in connection.execute(query).all()]


def topics_of(connection: Connection, conversation_ids: Collection[str]) -> set[bytes]:
    """The topics of the candidates of conversations."""
    columns = t.candidates.c
    return _distinct(connection, columns.topic, columns.conversation_id, conversation_ids)


def conversations_about(connection: Connection, topics: Collection[bytes]) -> set[str]:
    """The conversations with candidates about topics."""
    columns = t.candidates.c
    return _distinct(connection, columns.conversation_id, columns.topic, topics)


def _distinct(
    connection: Connection, wanted: Column[Any], where: Column[Any], among: Collection[Any]
) -> set[Any]:
    """The values of one column in the rows that have certain values in another."""
    found: set[Any] = set()
    for some in batches(among):
        found.update(connection.execute(select(wanted).where(where.in_(some)).distinct()).scalars())
    return found


def examples_about(
    connection: Connection, topics: Collection[bytes]
) -> list[tuple[int, Candidate]]:
    """The examples about topics, trained on or not, each with its row's number."""
    return [
        row
        for some in batches(topics)
        for row in _numbered(
            connection, t.candidates.c.topic.in_(some), t.candidates.c.kind != SET_ASIDE
        )
    ]


def counts_by_users(connection: Connection, kind: str) -> dict[str, int]:
    """The number of distinct examples of a kind, by the column `users`."""
    users = t.candidates.c.users
    query = select(users, func.count()).where(*_distinct_examples(kind)).group_by(users)
    return {row[0]: row[1] for row in connection.execute(query).all()}


def distinct_examples_of(
    connection: Connection, kind: str, users: Collection[str]
) -> list[tuple[int, Candidate]]:
    """The distinct examples of a kind with certain values in `users`, in the order they spoke."""
    found = [
        row
        for some in batches(users)
        for row in _numbered(connection, *_distinct_examples(kind), t.candidates.c.users.in_(some))
    ]
    return sorted(found, key=lambda each: (each[1].first_event, each[1].key))


def examples_over_cap(connection: Connection, kind: str) -> list[tuple[int, Candidate]]:
    """The examples of a kind that are set aside for their users' shares."""
    columns = t.candidates.c
    return _numbered(
        connection, columns.kind == kind, columns.status == SET_ASIDE, columns.reason == OVER_CAP
    )


def _distinct_examples(kind: str) -> tuple[ColumnElement[bool], ...]:
    columns = t.candidates.c
    return columns.kind == kind, (columns.status == kind) | (columns.reason == OVER_CAP)


def _numbered(connection: Connection, *where: ColumnElement[bool]) -> list[tuple[int, Candidate]]:
    rows = connection.execute(select(t.candidates).where(*where)).all()
    return [(row[0], Candidate(*row[1:])) for row in rows]


# Counts


def count_candidates(
    connection: Connection, conversation_ids: Collection[str] | None = None
) -> dict[str, dict[str, int]]:
    """The number of rows by status and reason; of some conversations, or of all."""
    columns = t.candidates.c
    query = select(columns.status, columns.reason, func.count()).group_by(
        columns.status, columns.reason
    )
    if conversation_ids is not None:
        query = query.where(columns.conversation_id.in_(conversation_ids))
    found: dict[str, dict[str, int]] = {}
    for status, reason, count in connection.execute(query).all():
        found.setdefault(status, {})[reason] = count
    return found


def update_counts(
    before: StatusCounts,
    deleted: StatusCounts,
    changes: Iterable[StatusChange],
    added: Iterable[Candidate] = (),
) -> dict[str, dict[str, int]]:
    """The counts after rows were deleted, others have changed, and others were added."""
    after = {status: Counter(reasons) for status, reasons in before.items()}
    for status, reasons in deleted.items():
        after[status].subtract(reasons)
    for change in changes:
        after[change.before.status][change.before.reason] -= 1
        after.setdefault(change.after.status, Counter())[change.after.reason] += 1
    for row in added:
        after.setdefault(row.status, Counter())[row.reason] += 1
    return {status: dict(+reasons) for status, reasons in sorted(after.items())}
