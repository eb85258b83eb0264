"""The tables. A turn is what a person asked; an answer is one reply to it; an event is what a
person said of an answer. Events are only ever added; current votes are a view on them."""

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
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

templates = Table(
    "templates",
    metadata,
    Column("hash", String(71), primary_key=True),
    Column("definition", JSON, nullable=False),
)

turns = Table(
    "turns",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("conversation_id", String(64), nullable=False),
    Column("parent_answer_id", String(32)),
    Column("user_id", String(64), nullable=False),
    Column("question", Text, nullable=False),
    Column("mode", String(16), nullable=False),
    Column("template_hash", ForeignKey("templates.hash"), nullable=False),
    # The prompt as shown, where it is not the template over the chain of parents: an import, or a
    # history that was trimmed to fit the context
    Column("prompt", JSON(none_as_null=True)),
    Column("created_at", Float, nullable=False),
    Index(None, "conversation_id"),
)

ANSWER_STATUS = ("streaming", "done", "stopped", "failed", "aborted")

answers = Table(
    "answers",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("turn_id", ForeignKey("turns.id"), nullable=False),
    Column("status", String(16), nullable=False),
    Column("text", Text, nullable=False, default=""),
    Column("thought", Text, nullable=False, default=""),
    Column("complete", Integer, nullable=False, default=0),  # 1: the model ended it itself
    Column("base_digest", String(71), nullable=False),
    Column("adapter_digest", String(71)),  # NULL: the base model
    Column("sampling", JSON, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("error", Text),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
    CheckConstraint(f"status IN {ANSWER_STATUS}", name="status"),
    Index(None, "turn_id"),
    Index(None, "status"),
)

events = Table(
    "events",
    metadata,
    Column(
        "id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    Column("idempotency_key", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("answer_id", ForeignKey("answers.id"), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("vote", Integer),  # +1, -1, 0 cleared; NULL unless kind is "vote"
    Column("correction", Text),  # NULL unless kind is "correction"
    Column("created_at", Float, nullable=False),
    CheckConstraint(
        "(kind = 'vote' AND vote IN (-1, 0, 1) AND correction IS NULL)"
        " OR (kind = 'correction' AND correction IS NOT NULL AND vote IS NULL)",
        name="kind",
    ),
    UniqueConstraint("user_id", "idempotency_key", name="uq_events_user_id_idempotency_key"),
    Index(None, "answer_id", "user_id", "kind"),
)
