"""Passages of documents that a turn's prompt shows. Earlier turns were asked without any."""

import sqlalchemy as sa
from alembic import op

revision = "feedback_0010"
down_revision = "feedback_0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("turns", sa.Column("passages", sa.JSON))


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: events are never thrown away")
