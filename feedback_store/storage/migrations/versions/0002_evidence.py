"""Reasons, comments, comparisons, decisions, consent, erasure. `events` is made anew, since SQLite
changes no constraint in place; every row and id is carried over."""

import sqlalchemy as sa
from alembic import op

revision = "feedback_0002"
down_revision = "feedback_0001"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_index("ix_turns_user_id", "turns", ["user_id"])
    op.create_index("ix_turns_created_at", "turns", ["created_at"])
    op.create_table(
        "comparisons",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("turn_id", sa.String(32), sa.ForeignKey("turns.id"), nullable=False),
        sa.Column("left_answer_id", sa.String(32), sa.ForeignKey("answers.id"), nullable=False),
        sa.Column("right_answer_id", sa.String(32), sa.ForeignKey("answers.id"), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("ix_comparisons_turn_id", "comparisons", ["turn_id"])
    _remake_events()
    op.create_table(
        "decisions",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("example_id", sa.String(71), nullable=False),
        sa.Column("conversation_id", sa.String(64), nullable=False),
        sa.Column("user_ids", sa.JSON, nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("chosen", sa.Text),
        sa.Column("rejected", sa.Text),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.CheckConstraint("action IN ('exclude', 'include', 'edit')", name="ck_decisions_action"),
    )
    op.create_index("ix_decisions_example_id", "decisions", ["example_id"])
    op.create_index("ix_decisions_conversation_id", "decisions", ["conversation_id"])
    op.create_table(
        "gold",
        sa.Column("conversation_id", sa.String(64), primary_key=True),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "consents",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("allowed", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("ix_consents_user_id", "consents", ["user_id"])
    op.create_table(
        "erasures",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("receipt", sa.JSON, nullable=False),
        sa.Column("unfinished", sa.JSON),
        sa.Column("people", sa.JSON),
        sa.Column("created_at", sa.Float, nullable=False),
    )


def _remake_events() -> None:
    op.execute("DROP VIEW current_feedback")
    op.execute("CREATE TABLE events_0001 AS SELECT * FROM events")
    op.drop_table("events")
    op.create_table(
        "events",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("idempotency_key", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("answer_id", sa.String(32), sa.ForeignKey("answers.id")),
        sa.Column("comparison_id", sa.String(32), sa.ForeignKey("comparisons.id")),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("vote", sa.Integer),
        sa.Column("reasons", sa.JSON),
        sa.Column("comment", sa.Text),
        sa.Column("correction", sa.Text),
        sa.Column("choice", sa.String(16)),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.CheckConstraint(
            "kind IN ('vote', 'correction', 'choice', 'flag', 'regeneration', 'copy')"
            " AND (kind = 'vote') = (vote IS NOT NULL) AND (vote IS NULL OR vote IN (-1, 0, 1))"
            " AND (kind = 'correction') = (correction IS NOT NULL)"
            " AND (kind = 'choice') = (choice IS NOT NULL)"
            " AND (choice IS NULL OR choice IN ('left', 'right', 'tie', 'both_bad'))"
            " AND (kind = 'choice') = (comparison_id IS NOT NULL)"
            " AND (kind = 'choice') = (answer_id IS NULL)",
            name="ck_events_kind",
        ),
        sa.UniqueConstraint("user_id", "idempotency_key", name="uq_events_user_id_idempotency_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_answer_id_user_id_kind", "events", ["answer_id", "user_id", "kind"])
    op.create_index("ix_events_comparison_id_user_id", "events", ["comparison_id", "user_id"])
    op.create_index("ix_events_kind_id", "events", ["kind", "id"])
    kept = "id, idempotency_key, kind, answer_id, user_id, vote, correction, created_at"
    op.execute(f"INSERT INTO events ({kept}) SELECT {kept} FROM events_0001")  # noqa: S608
    op.execute("DROP TABLE events_0001")
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "SELECT setval(pg_get_serial_sequence('events', 'id'),"
            " (SELECT coalesce(max(id), 0) + 1 FROM events), false)"
        )
    op.execute(
        "CREATE VIEW current_feedback AS SELECT e.* FROM events e JOIN ("
        "SELECT max(id) AS id FROM events WHERE kind IN ('vote', 'correction', 'choice', 'flag')"
        " GROUP BY answer_id, comparison_id, user_id, kind"
        ") latest ON latest.id = e.id"
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: events are never thrown away")
