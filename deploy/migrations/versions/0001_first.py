"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "deploy_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "releases",
        sa.Column("bundle", sa.String(71), primary_key=True),
        sa.Column("report", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    live = op.create_table(
        "live",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("bundle", sa.String(71)),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.CheckConstraint("id = 1", name="ck_live_one_row"),
    )
    op.bulk_insert(live, [{"id": 1, "bundle": None, "generation": 0}])
    op.create_table(
        "release_history",
        sa.Column("generation", sa.BigInteger, primary_key=True),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("bundle", sa.String(71)),
        sa.Column("previous", sa.String(71)),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_table(
        "servers",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("bundle", sa.String(71)),
        sa.Column("seen_at", sa.Float, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
