"""The first tables. Written out in full: a migration never follows later changes of `tables`."""

import sqlalchemy as sa
from alembic import op

revision = "feedback_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "templates",
        sa.Column("hash", sa.String(71), primary_key=True),
        sa.Column("definition", sa.JSON, nullable=False),
    )
    op.create_table(
        "turns",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("conversation_id", sa.String(64), nullable=False),
        sa.Column("parent_answer_id", sa.String(32)),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("template_hash", sa.String(71), sa.ForeignKey("templates.hash"), nullable=False),
        sa.Column("prompt", sa.JSON),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("ix_turns_conversation_id", "turns", ["conversation_id"])
    op.create_table(
        "answers",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("turn_id", sa.String(32), sa.ForeignKey("turns.id"), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("thought", sa.Text, nullable=False),
        sa.Column("complete", sa.Integer, nullable=False),
        sa.Column("base_digest", sa.String(71), nullable=False),
        sa.Column("adapter_digest", sa.String(71)),
        sa.Column("sampling", sa.JSON, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("prompt_tokens", sa.Integer),
        sa.Column("completion_tokens", sa.Integer),
        sa.Column("error", sa.Text),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("finished_at", sa.Float),
        sa.CheckConstraint(
            "status IN ('streaming', 'done', 'stopped', 'failed', 'aborted')",
            name="ck_answers_status",
        ),
    )
    op.create_index("ix_answers_turn_id", "answers", ["turn_id"])
    op.create_index("ix_answers_status", "answers", ["status"])
    op.create_table(
        "events",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("idempotency_key", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("answer_id", sa.String(32), sa.ForeignKey("answers.id"), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("vote", sa.Integer),
        sa.Column("correction", sa.Text),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.CheckConstraint(
            "(kind = 'vote' AND vote IN (-1, 0, 1) AND correction IS NULL)"
            " OR (kind = 'correction' AND correction IS NOT NULL AND vote IS NULL)",
            name="ck_events_kind",
        ),
        sa.UniqueConstraint("user_id", "idempotency_key", name="uq_events_user_id_idempotency_key"),
    )
    op.create_index("ix_events_answer_id_user_id_kind", "events", ["answer_id", "user_id", "kind"])
    op.execute(
        "CREATE VIEW current_feedback AS SELECT e.* FROM events e JOIN ("
        "SELECT max(id) AS id FROM events GROUP BY answer_id, user_id, kind"
        ") latest ON latest.id = e.id"
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: events are never thrown away")
