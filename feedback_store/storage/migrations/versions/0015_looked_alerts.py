"""Alerts that an operator has looked at. It begins empty."""

import sqlalchemy as sa
from alembic import op

revision = "feedback_0015"
down_revision = "feedback_0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "looked_alerts",
        sa.Column("alert_id", sa.String(16), primary_key=True),
        sa.Column("looked_by", sa.String(64), nullable=False),
        sa.Column("looked_at", sa.Float, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: events are never thrown away")
