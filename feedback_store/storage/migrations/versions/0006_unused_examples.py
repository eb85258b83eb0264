"""Examples that a person wants shown no more. It begins empty."""

import sqlalchemy as sa
from alembic import op

revision = "feedback_0006"
down_revision = "feedback_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "unused_examples",
        sa.Column("user_id", sa.String(64), primary_key=True),
        sa.Column("answer_id", sa.String(32), sa.ForeignKey("answers.id"), primary_key=True),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("ix_unused_examples_answer_id", "unused_examples", ["answer_id"])


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: events are never thrown away")
