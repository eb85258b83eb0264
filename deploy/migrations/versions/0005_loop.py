"""The rounds of the periodic loop, and the lease of the one loop that works on them."""

import sqlalchemy as sa
from alembic import op

revision = "deploy_0005"
down_revision = "deploy_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    identity = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "loop_events",
        sa.Column("id", identity, primary_key=True, autoincrement=True),
        sa.Column("round", sa.Integer),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    lease = op.create_table(
        "loop_lease",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("holder", sa.String(32)),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("beat", sa.Integer, nullable=False),
        sa.CheckConstraint("id = 1", name="ck_loop_lease_one_row"),
    )
    op.bulk_insert(lease, [{"id": 1, "holder": None, "token": 0, "beat": 0}])


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
