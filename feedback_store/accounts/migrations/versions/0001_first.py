"""Accounts, their links, sessions and keys, and the audit log. They begin empty."""

import sqlalchemy as sa
from alembic import op

revision = "accounts_0001"
down_revision = None
branch_labels = None
depends_on = None

REFUSAL = "the audit log is append only"
SQLITE = [
    f"CREATE TRIGGER audit_is_kept_{act.lower()} BEFORE {act} ON audit"
    f" BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
    for act in ("UPDATE", "DELETE")
]
POSTGRESQL = [
    "CREATE FUNCTION audit_is_kept() RETURNS trigger LANGUAGE plpgsql AS"
    f" $$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$",
    "CREATE TRIGGER audit_is_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit"
    " FOR EACH STATEMENT EXECUTE FUNCTION audit_is_kept()",
]


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("password_hash", sa.Text),
        sa.Column("origin", sa.String(255)),
        sa.Column("disabled_at", sa.Float),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.CheckConstraint("role IN ('user', 'reviewer', 'operator')", name="ck_accounts_role"),
        sa.UniqueConstraint("name", name="uq_accounts_name"),
        sa.UniqueConstraint("origin", name="uq_accounts_origin"),
    )
    op.create_table(
        "account_links",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("role", sa.String(16)),
        sa.Column("account_id", sa.String(32), sa.ForeignKey("accounts.id")),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.CheckConstraint(
            "(role IS NULL) <> (account_id IS NULL)", name="ck_account_links_purpose"
        ),
    )
    op.create_table(
        "login_sessions",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("account_id", sa.String(32), sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("used_on", sa.String(10), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.UniqueConstraint("digest", name="uq_login_sessions_digest"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("account_id", sa.String(32), sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("label", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("used_on", sa.String(10)),
        sa.Column("revoked_at", sa.Float),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.UniqueConstraint("digest", name="uq_api_keys_digest"),
    )
    for table in ("account_links", "login_sessions", "api_keys"):
        op.create_index(f"ix_{table}_account_id", table, ["account_id"])
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "audit",
        sa.Column("id", number, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(128), nullable=False),
    )
    postgresql = op.get_bind().dialect.name == "postgresql"
    for statement in POSTGRESQL if postgresql else SQLITE:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: the audit log is never thrown away")
