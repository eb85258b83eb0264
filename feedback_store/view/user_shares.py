"""The users' shares, applied to the table of candidates. The rule itself is `shares`'s."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from sqlalchemy import Connection

from feedback_store.examples.rules import OVER_CAP, Rules
from feedback_store.examples.shares import over_cap, user_cap
from feedback_store.examples.types import EXAMPLE_KINDS
from feedback_store.view.candidates import (
    SET_ASIDE,
    StatusChange,
    counts_by_users,
    distinct_examples_of,
    examples_over_cap,
    split_users,
)


def changes_of_shares(connection: Connection, rules: Rules) -> list[StatusChange]:
    """Status changes of examples, now that some users have more or fewer than before."""
    return [
        change for kind in EXAMPLE_KINDS for change in _changes_of_kind(connection, kind, rules)
    ]


def _changes_of_kind(connection: Connection, kind: str, rules: Rules) -> Iterator[StatusChange]:
    by_users = counts_by_users(connection, kind)
    counts: Counter[str] = Counter()
    for users, count in by_users.items():
        for user in split_users(users):
            counts[user] += count
    total = sum(by_users.values())
    cap = user_cap(total, counts, share=rules.user_share, floor=rules.user_floor)
    exceeding = {user for user, count in counts.items() if cap is not None and count > cap}
    affected = [users for users in by_users if not exceeding.isdisjoint(split_users(users))]
    rows = distinct_examples_of(connection, kind, affected)
    verdicts = over_cap([row.user_ids for _, row in rows], cap)
    now_over = {row_id for (row_id, _), over in zip(rows, verdicts, strict=True) if over}
    was_over = dict(examples_over_cap(connection, kind))
    for row_id, row in rows:
        if row_id in now_over and row_id not in was_over:
            yield StatusChange(row_id, row, replace(row, status=SET_ASIDE, reason=OVER_CAP))
    for row_id, row in was_over.items():
        if row_id not in now_over:
            yield StatusChange(row_id, row, replace(row, status=kind, reason=row.source))
