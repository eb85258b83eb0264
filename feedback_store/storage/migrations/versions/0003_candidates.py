"""Tables derived from the evidence: candidates, verdicts, and how far they go. All begin empty."""

import sqlalchemy as sa
from alembic import op

revision = "feedback_0003"
down_revision = "feedback_0002"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "candidates",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("conversation_id", sa.String(64), nullable=False),
        sa.Column("key", sa.String(71), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("topic", sa.LargeBinary(16), nullable=False),
        sa.Column("label", sa.Integer, nullable=False),
        sa.Column("first_event", sa.BigInteger, nullable=False),
        sa.Column("users", sa.Text, nullable=False),
        sa.Column("place", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
    )
    for columns in (
        ["conversation_id"],
        ["topic"],
        ["place", "first_event", "reason"],
        ["kind", "users", "place", "reason"],
    ):
        op.create_index(f"ix_candidates_{'_'.join(columns)}", "candidates", columns)
    op.create_table("stale", sa.Column("conversation_id", sa.String(64), primary_key=True))
    op.create_table(
        "verdicts",
        sa.Column("answer_id", sa.String(32), primary_key=True),
        sa.Column("conversation_id", sa.String(64), nullable=False),
        sa.Column("votes", sa.String(71), nullable=False),
        sa.Column("up", sa.Integer, nullable=False),
        sa.Column("confidence", sa.Float, nullable=False),
    )
    op.create_index("ix_verdicts_conversation_id", "verdicts", ["conversation_id"])
    op.create_table(
        "training_set",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("state", sa.JSON, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: events are never thrown away")
