"""The tables. A turn is what a person asked; an answer is one reply to it; an event is what a
person said or did about an answer or a comparison of two. Events, decisions and consents are only
ever added, until a person is forgotten; what is current is a view on them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from feedback_store.records import CHOICES
from feedback_store.storage.term_vector import TermVector

feedback_metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def columns(table: Table, names: str) -> list[Column[Any]]:
    """Some columns of a table, by their names with spaces between them."""
    return [table.c[name] for name in names.split()]


def row_of(value: Any) -> dict[str, Any]:
    """The row of a dataclass whose fields are named as the columns."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _number() -> Column[int]:
    """The id of rows that are numbered in the order in which they come."""
    kind = BigInteger().with_variant(Integer, "sqlite")
    return Column("id", kind, primary_key=True, autoincrement=True)


templates = Table(
    "templates",
    feedback_metadata,
    Column("hash", String(71), primary_key=True),
    Column("definition", JSON, nullable=False),
)

turns = Table(
    "turns",
    feedback_metadata,
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
    # References of the examples from feedback that were shown beside the prompt; NULL: none
    Column("example_ids", JSON(none_as_null=True)),
    # Passages of documents that the prompt shows, as they were then; NULL: asked without documents
    Column("passages", JSON(none_as_null=True)),
    Column("created_at", Float, nullable=False),
    Index(None, "conversation_id"),
    Index(None, "user_id"),
    Index(None, "created_at"),
)

ANSWER_STATUS = ("streaming", "done", "stopped", "failed", "aborted")

answers = Table(
    "answers",
    feedback_metadata,
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
    Column("first_token_at", Float),
    Column("finished_at", Float),  # of the first end, where it was continued and streams again
    Column("writer", String(32)),  # the server that writes it, or wrote it last
    Column("stop_wanted", Integer, nullable=False, default=0),  # 1: its writer shall stop
    CheckConstraint(f"status IN {ANSWER_STATUS}", name="status"),
    Index(None, "turn_id"),
    Index(None, "status"),
)

# What a person's list of conversations shows; an API caller's or a judged import has no row here
conversations = Table(
    "conversations",
    feedback_metadata,
    Column("id", String(64), primary_key=True),
    Column("user_id", String(64), nullable=False),
    Column("title", Text, nullable=False),
    Column("pinned", Integer, nullable=False, default=0),
    Column("shown_answer_id", String(32)),  # the leaf of the branch that is shown
    Column("updated_at", Float, nullable=False),
    Column("deleted_at", Float),  # marked by its person, to be erased later
    Index(None, "user_id", "updated_at"),
)


# What can be searched for: a question, an answer or, with neither id, a title that was given. A
# higher id is newer. The migrations build the index: GIN on `terms` in PostgreSQL; in SQLite the
# FTS5 table `search_index`, which triggers keep in step
search_documents = Table(
    "search_documents",
    feedback_metadata,
    _number(),
    Column("conversation_id", ForeignKey("conversations.id"), nullable=False),
    Column("turn_id", String(32)),
    Column("answer_id", String(32)),
    Column("terms", Text().with_variant(TermVector(), "postgresql"), nullable=False),
    Index(None, "conversation_id"),
)

comparisons = Table(
    "comparisons",
    feedback_metadata,
    Column("id", String(32), primary_key=True),
    Column("turn_id", ForeignKey("turns.id"), nullable=False),
    Column("left_answer_id", ForeignKey("answers.id"), nullable=False),
    Column("right_answer_id", ForeignKey("answers.id"), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Index(None, "turn_id"),
)

# Answers that the engine wrote to be compared, beside an answer that somebody disliked. A second
# answer that was then not offered is one of itself: it is not shown, and says nothing of the first
alternatives = Table(
    "alternatives",
    feedback_metadata,
    Column("answer_id", ForeignKey("answers.id"), primary_key=True),
    Column("of_answer_id", ForeignKey("answers.id"), nullable=False),
    # 1: the person who asked has compared it, and sees it among the answers from then on
    Column("shown", Integer, nullable=False, default=0),
    Column("created_at", Float, nullable=False),
    Index(None, "of_answer_id"),
)

# Two alternatives that wait until a person compares them
waiting_comparisons = Table(
    "waiting_comparisons",
    feedback_metadata,
    _number(),
    Column("turn_id", ForeignKey("turns.id"), nullable=False),
    Column("first_answer_id", ForeignKey("answers.id"), nullable=False),
    Column("second_answer_id", ForeignKey("answers.id"), nullable=False),
    Column("preference", Float, nullable=False),  # predicted: that the first one is preferred
    Column("entropy", Float, nullable=False),  # of the policy on this prompt, nats a token
    Column("outcome", String(16)),  # NULL: it waits
    Column("comparison_id", String(32)),  # the comparison by which it was judged
    Column("created_at", Float, nullable=False),
    CheckConstraint("outcome IN ('judged', 'skipped')", name="outcome"),
    Index(None, "turn_id"),
    Index(None, "outcome"),
)

# What a person said or did; each kind fills one column of its own, or none
EVENT_KINDS = ("vote", "correction", "choice", "flag", "regeneration", "copy")

events = Table(
    "events",
    feedback_metadata,
    _number(),
    Column("idempotency_key", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("answer_id", ForeignKey("answers.id")),
    Column("comparison_id", ForeignKey("comparisons.id")),
    Column("user_id", String(64), nullable=False),
    Column("vote", Integer),  # +1, -1, 0 cleared
    Column("reasons", JSON(none_as_null=True)),  # words of `records.GOOD_REASONS`, `BAD_REASONS`
    Column("comment", Text),
    Column("correction", Text),
    Column("choice", String(16)),
    Column("created_at", Float, nullable=False),
    CheckConstraint(
        f"kind IN {EVENT_KINDS}"
        " AND (kind = 'vote') = (vote IS NOT NULL) AND (vote IS NULL OR vote IN (-1, 0, 1))"
        " AND (kind = 'correction') = (correction IS NOT NULL)"
        f" AND (kind = 'choice') = (choice IS NOT NULL) AND (choice IS NULL OR choice IN {CHOICES})"
        " AND (kind = 'choice') = (comparison_id IS NOT NULL)"
        " AND (kind = 'choice') = (answer_id IS NULL)",
        name="kind",
    ),
    UniqueConstraint("user_id", "idempotency_key", name="uq_events_user_id_idempotency_key"),
    Index(None, "answer_id", "user_id", "kind"),
    Index(None, "comparison_id", "user_id"),
    Index(None, "kind", "id"),
    sqlite_autoincrement=True,  # the number of an event that was erased is never given again
)

# Votes that the operator has looked at
looked_votes = Table(
    "looked_votes",
    feedback_metadata,
    Column(
        "event_id",
        BigInteger().with_variant(Integer, "sqlite"),
        ForeignKey("events.id", ondelete="CASCADE"),  # a vote that is erased takes its mark along
        primary_key=True,
    ),
    Column("looked_at", Float, nullable=False),
)

# Alerts that an operator has looked at; an alert has the digest of what it is about
looked_alerts = Table(
    "looked_alerts",
    feedback_metadata,
    Column("alert_id", String(16), primary_key=True),
    Column("looked_by", String(64), nullable=False),  # as the audit log names who acts
    Column("looked_at", Float, nullable=False),
)

# What the operator decided about an example; the latest decision about it counts
decisions = Table(
    "decisions",
    feedback_metadata,
    _number(),
    Column("example_id", String(71), nullable=False),
    Column("conversation_id", String(64), nullable=False),
    Column("user_ids", JSON, nullable=False),  # whose statements the example rests on
    Column("action", String(16), nullable=False),
    Column("chosen", Text),  # the edited texts; NULL unless action is "edit"
    Column("rejected", Text),
    Column("note", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    CheckConstraint("action IN ('exclude', 'include', 'edit')", name="action"),
    Index(None, "example_id"),
    Index(None, "conversation_id"),
)

# Conversations that nothing may ever be trained on: the operator's yardstick
gold_conversations = Table(
    "gold",
    feedback_metadata,
    Column("conversation_id", String(64), primary_key=True),
    Column("created_at", Float, nullable=False),
)

# Whether a person's words may be trained on; the latest statement counts
consents = Table(
    "consents",
    feedback_metadata,
    _number(),
    Column("user_id", String(64), nullable=False),
    Column("allowed", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Index(None, "user_id"),
)

# Answers that their person wants shown as an example no more
unused_examples = Table(
    "unused_examples",
    feedback_metadata,
    Column("user_id", String(64), primary_key=True),
    Column("answer_id", ForeignKey("answers.id"), primary_key=True),
    Column("created_at", Float, nullable=False),
    Index(None, "answer_id"),
)

# Answers that the operator shares with everybody as examples, in the words that they had then
shared_examples = Table(
    "shared_examples",
    feedback_metadata,
    Column("answer_id", ForeignKey("answers.id"), primary_key=True),
    Column("approved_at", Float, nullable=False),
)

# Prompts that a person keeps: see `own_prompts`
prompts = Table(
    "prompts",
    feedback_metadata,
    Column("id", String(32), primary_key=True),
    Column("user_id", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    CheckConstraint("kind IN ('system', 'saved')", name="kind"),
    Index(None, "user_id"),
)

# Tools that a person lets answers call; the digest is of what the tool was then
tool_consents = Table(
    "tool_consents",
    feedback_metadata,
    Column("user_id", String(64), primary_key=True),
    Column("tool", String(64), primary_key=True),
    Column("digest", String(71), nullable=False),
    Column("created_at", Float, nullable=False),
)

# Questions and answers drafted from shared documents, and what the operator decided about them
drafts = Table(
    "drafts",
    feedback_metadata,
    Column("id", String(32), primary_key=True),
    Column("collection", Text, nullable=False),
    Column("passage", JSON, nullable=False),
    Column("question", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", Float, nullable=False),
    CheckConstraint("status IN ('waiting', 'approved', 'dropped')", name="status"),
    Index(None, "status"),
)

# What was erased, when and with what effect; names nobody
erasures = Table(
    "erasures",
    feedback_metadata,
    _number(),
    Column("receipt", JSON, nullable=False),
    # What must be known to go on after a crash; NULL once all is done
    Column("unfinished", JSON(none_as_null=True)),
    # Retention: snapshot -> digests of the people whose examples it lost, so that what was trained
    # on it is still found when one of them is forgotten
    Column("people", JSON(none_as_null=True)),
    Column("created_at", Float, nullable=False),
)

# What the evidence gives: an example, or a statement that can be none. Texts are not repeated here
candidates = Table(
    "candidates",
    feedback_metadata,
    _number(),
    Column("conversation_id", String(64), nullable=False),
    Column("key", String(71), nullable=False),  # an example's id; a digest of any other statement
    Column("kind", String(16), nullable=False),  # "set_aside": no example, whatever others say
    Column("source", String(64), nullable=False),  # of the example; or why there is none
    # Those of one topic and label may be duplicates of each other
    Column("topic", LargeBinary(16), nullable=False),
    Column("label", Integer, nullable=False),  # 1: a lone answer that is good; else 0
    Column("first_event", BigInteger, nullable=False),
    Column("users", Text, nullable=False),  # whose share it counts for, a line each
    # Its kind where it is trained on, else "set_aside"; and why. The column is called "place"
    Column("place", String(16), key="status", nullable=False),
    Column("reason", String(64), nullable=False),
    Index(None, "conversation_id"),
    Index(None, "topic"),
    Index(None, "status", "first_event", "reason"),
    Index(None, "kind", "users", "status", "reason"),
)

# Conversations whose candidates are to be made anew
stale = Table("stale", feedback_metadata, Column("conversation_id", String(64), primary_key=True))

# What several people's thumbs say of one answer, from the latest estimate of trust
verdicts = Table(
    "verdicts",
    feedback_metadata,
    Column("answer_id", String(32), primary_key=True),
    Column("conversation_id", String(64), nullable=False),
    Column("votes", String(71), nullable=False),  # digest of who voted how
    Column("up", Integer, nullable=False),
    Column("confidence", Float, nullable=False),
    Index(None, "conversation_id"),
)

# One row: up to where the candidates have been derived, and by which rules
training_set = Table(
    "training_set",
    feedback_metadata,
    Column("id", Integer, primary_key=True),
    Column("state", JSON, nullable=False),
)

DERIVED = (candidates, stale, verdicts, training_set)
