"""Questions and answers drafted from documents. It begins empty."""

import sqlalchemy as sa
from alembic import op

revision = "feedback_0011"
down_revision = "feedback_0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "drafts",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("collection", sa.Text, nullable=False),
        sa.Column("passage", sa.JSON, nullable=False),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.CheckConstraint("status IN ('waiting', 'approved', 'dropped')", name="ck_drafts_status"),
    )
    op.create_index("ix_drafts_status", "drafts", ["status"])


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: events are never thrown away")
