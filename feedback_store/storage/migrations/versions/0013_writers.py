"""The server that writes an answer, and the wish to stop one that another server writes."""

import sqlalchemy as sa
from alembic import op

revision = "feedback_0013"
down_revision = "feedback_0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("answers", sa.Column("writer", sa.String(32)))
    op.add_column(
        "answers", sa.Column("stop_wanted", sa.Integer, nullable=False, server_default="0")
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: events are never thrown away")
