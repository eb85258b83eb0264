"""Bundles that learnt from somebody who has been forgotten since."""

import sqlalchemy as sa
from alembic import op

revision = "deploy_0002"
down_revision = "deploy_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "taints",
        sa.Column("bundle", sa.String(71), primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
