"""Reports without the ids of conversations: what a verdict rests on is in its evaluation."""

import sqlalchemy as sa
from alembic import op

revision = "deploy_0003"
down_revision = "deploy_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    releases = sa.table(
        "releases", sa.column("bundle", sa.String(71)), sa.column("report", sa.JSON)
    )
    connection = op.get_bind()
    for bundle, report in connection.execute(sa.select(releases)).all():
        kept = {key: value for key, value in report.items() if key != "scores"}
        connection.execute(
            sa.update(releases).where(releases.c.bundle == bundle).values(report=kept)
        )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
