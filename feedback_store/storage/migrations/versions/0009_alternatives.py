"""Alternatives of disliked answers, and the comparisons of them that wait. They begin empty."""

import sqlalchemy as sa
from alembic import op

revision = "feedback_0009"
down_revision = "feedback_0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alternatives",
        sa.Column("answer_id", sa.String(32), sa.ForeignKey("answers.id"), primary_key=True),
        sa.Column("of_answer_id", sa.String(32), sa.ForeignKey("answers.id"), nullable=False),
        sa.Column("shown", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("ix_alternatives_of_answer_id", "alternatives", ["of_answer_id"])
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "waiting_comparisons",
        sa.Column("id", number, primary_key=True, autoincrement=True),
        sa.Column("turn_id", sa.String(32), sa.ForeignKey("turns.id"), nullable=False),
        sa.Column("first_answer_id", sa.String(32), sa.ForeignKey("answers.id"), nullable=False),
        sa.Column("second_answer_id", sa.String(32), sa.ForeignKey("answers.id"), nullable=False),
        sa.Column("preference", sa.Float, nullable=False),
        sa.Column("entropy", sa.Float, nullable=False),
        sa.Column("outcome", sa.String(16)),
        sa.Column("comparison_id", sa.String(32)),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.CheckConstraint(
            "outcome IN ('judged', 'skipped')", name="ck_waiting_comparisons_outcome"
        ),
    )
    for column in ("turn_id", "outcome"):
        op.create_index(f"ix_waiting_comparisons_{column}", "waiting_comparisons", [column])


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: events are never thrown away")
