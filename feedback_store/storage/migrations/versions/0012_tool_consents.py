"""Tools that a person lets answers call. It begins empty."""

import sqlalchemy as sa
from alembic import op

revision = "feedback_0012"
down_revision = "feedback_0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tool_consents",
        sa.Column("user_id", sa.String(64), primary_key=True),
        sa.Column("tool", sa.String(64), primary_key=True),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: events are never thrown away")
