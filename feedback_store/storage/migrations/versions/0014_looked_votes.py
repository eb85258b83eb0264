"""Votes that the operator has looked at. It begins empty."""

import sqlalchemy as sa
from alembic import op

revision = "feedback_0014"
down_revision = "feedback_0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "looked_votes",
        sa.Column(
            "event_id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            sa.ForeignKey("events.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("looked_at", sa.Float, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: events are never thrown away")
