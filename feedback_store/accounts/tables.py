"""The tables of accounts. Secrets are stored as digests alone; days, not moments, say when a
session or key was used. `audit` is append only: triggers refuse to change or delete its rows."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

account_metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

# The id is the `user_id` of what the account's person asks and says
accounts = Table(
    "accounts",
    account_metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("password_hash", Text),  # NULL: who signs in elsewhere alone
    Column("origin", String(255), unique=True),  # who they are to a provider or proxy
    Column("disabled_at", Float),
    Column("created_at", Float, nullable=False),
    CheckConstraint("role IN ('user', 'reviewer', 'operator')", name="role"),
)

# An invitation has a role, a reset the account that it is for. Used ones are deleted
links = Table(
    "account_links",
    account_metadata,
    Column("digest", String(64), primary_key=True),
    Column("role", String(16)),
    Column("account_id", ForeignKey("accounts.id")),
    Column("expires_at", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    CheckConstraint("(role IS NULL) <> (account_id IS NULL)", name="purpose"),
    Index(None, "account_id"),
)

login_sessions = Table(
    "login_sessions",
    account_metadata,
    Column("id", String(32), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("used_on", String(10), nullable=False),  # the last day, in UTC: 2026-01-31
    Column("created_at", Float, nullable=False),
    Index(None, "account_id"),
)

api_keys = Table(
    "api_keys",
    account_metadata,
    Column("id", String(32), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("label", String(64), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("used_on", String(10)),
    Column("revoked_at", Float),
    Column("created_at", Float, nullable=False),
    Index(None, "account_id"),
)

audit = Table(
    "audit",
    account_metadata,
    Column(
        "id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    Column("at", Float, nullable=False),
    Column("actor", String(64), nullable=False),  # a person's id, or the command line
    Column("action", String(32), nullable=False),
    Column("subject", String(128), nullable=False),  # an account's or release's id, or a role
)
