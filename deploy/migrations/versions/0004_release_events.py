"""One append-only table of events in place of three that were written over."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy import RowMapping

revision = "deploy_0004"
down_revision = "deploy_0003"
branch_labels = None
depends_on = None

RELEASES = sa.table(
    "releases", *map(sa.column, ("bundle", "created_at")), sa.column("report", sa.JSON)
)
HISTORY = sa.table(
    "release_history", *map(sa.column, ("generation", "action", "bundle", "previous", "note", "at"))
)
TAINTS = sa.table("taints", *map(sa.column, ("bundle", "reason", "at")))


def upgrade() -> None:
    identity = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    events = op.create_table(
        "release_events",
        sa.Column("id", identity, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("kind", sa.String(24), nullable=False),
        sa.Column("bundle", sa.String(71)),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    if rows := _events():
        op.bulk_insert(events, rows)
    for table in ("releases", "release_history", "taints"):
        op.drop_table(table)


def _events() -> list[dict[str, Any]]:
    """The rows of the old tables as events, in the order of their times.

    The changes of the pointer stay in the order of their generations, wherever a clock was set
    back: a later one counts as no earlier than those before it.
    """
    connection = op.get_bind()
    found: list[tuple[float, dict[str, Any]]] = []
    for row in connection.execute(sa.select(RELEASES)).mappings():
        document = {"report": row["report"]}
        found.append((row["created_at"], _event("judged", row, row["created_at"], document)))
    latest = 0.0
    for row in connection.execute(sa.select(HISTORY).order_by(sa.text("generation"))).mappings():
        latest = max(latest, row["at"])
        document = {
            "generation": row["generation"],
            "previous": row["previous"],
            "reason": row["note"],
        }
        found.append((latest, _event(row["action"], row, row["at"], document)))
    for row in connection.execute(sa.select(TAINTS)).mappings():
        found.append((row["at"], _event("tainted", row, row["at"], {"reason": row["reason"]})))
    return [event for _, event in sorted(found, key=lambda each: each[0])]


def _event(kind: str, row: RowMapping, at: float, document: Mapping[str, Any]) -> dict[str, Any]:
    return {"at": at, "kind": kind, "bundle": row["bundle"], "actor": "", "document": document}


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
