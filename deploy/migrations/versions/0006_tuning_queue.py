"""The queue of tuning jobs that wait for a worker on another host. It begins empty."""

import sqlalchemy as sa
from alembic import op

revision = "deploy_0006"
down_revision = "deploy_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tuning_queue",
        sa.Column("id", sa.String(71), primary_key=True),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("holder", sa.String(32)),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("beat", sa.Integer, nullable=False),
        sa.Column("progress", sa.JSON),
        sa.Column("bundle", sa.String(71)),
        sa.Column("error", sa.Text),
        sa.Column("created_at", sa.Float, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
