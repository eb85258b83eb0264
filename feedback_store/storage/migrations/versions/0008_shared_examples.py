"""Answers that the operator shares as examples with everybody. It begins empty."""

import sqlalchemy as sa
from alembic import op

revision = "feedback_0008"
down_revision = "feedback_0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "shared_examples",
        sa.Column("answer_id", sa.String(32), sa.ForeignKey("answers.id"), primary_key=True),
        sa.Column("approved_at", sa.Float, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: events are never thrown away")
