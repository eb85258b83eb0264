"""Lists of conversations and a search over them, filled from the turns that people asked.

Left out are imported conversations and those of the HTTP API's callers, which nobody has in a list.
Terms and titles come from the code of today: an index must fit the function that queries it.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

from feedback_store.storage.listing import title_of
from feedback_store.storage.search import document_terms

revision = "feedback_0005"
down_revision = "feedback_0004"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
API_USER = "api"
BATCH = 500
turns = sa.table(
    "turns",
    *(sa.column(name) for name in ("id", "conversation_id", "user_id", "question", "created_at")),
)
answers = sa.table(
    "answers", *(sa.column(name) for name in ("id", "turn_id", "text", "created_at"))
)
# Terms are letters, marks and digits with spaces between them: "ascii" leaves them as they are. The
# beginnings of 10 characters are those of a person's key and two letters, the most common ones
FTS5 = (
    """CREATE VIRTUAL TABLE search_index USING fts5(
        terms, content='search_documents', content_rowid='id', tokenize='ascii', detail='none',
        columnsize=0, prefix='10')""",
    "INSERT INTO search_index (search_index) VALUES ('rebuild')",
    """CREATE TRIGGER search_documents_insert AFTER INSERT ON search_documents BEGIN
        INSERT INTO search_index (rowid, terms) VALUES (new.id, new.terms); END""",
    """CREATE TRIGGER search_documents_delete AFTER DELETE ON search_documents BEGIN
        INSERT INTO search_index (search_index, rowid, terms)
        VALUES ('delete', old.id, old.terms); END""",
)
INSERT_DOCUMENT = (
    "INSERT INTO search_documents (conversation_id, turn_id, answer_id, terms)"
    " VALUES (:conversation_id, :turn_id, :answer_id, {terms})"
)
TERMS = {"sqlite": ":terms", "postgresql": "array_to_tsvector(string_to_array(:terms, ' '))"}
INSERT_CONVERSATION = (
    "INSERT INTO conversations (id, user_id, title, pinned, shown_answer_id, updated_at)"
    " VALUES (:id, :user_id, :title, 0, :shown_answer_id, :updated_at)"
)


def upgrade() -> None:
    connection = op.get_bind()
    postgresql = connection.dialect.name == "postgresql"
    op.add_column("turns", sa.Column("example_ids", sa.JSON))
    op.add_column("answers", sa.Column("first_token_at", sa.Float))
    op.create_table(
        "conversations",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("pinned", sa.Integer, nullable=False),
        sa.Column("shown_answer_id", sa.String(32)),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.Column("deleted_at", sa.Float),
    )
    op.create_index(
        "ix_conversations_user_id_updated_at", "conversations", ["user_id", "updated_at"]
    )
    op.create_table(
        "search_documents",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column(
            "conversation_id", sa.String(64), sa.ForeignKey("conversations.id"), nullable=False
        ),
        sa.Column("turn_id", sa.String(32)),
        sa.Column("answer_id", sa.String(32)),
        sa.Column("terms", TSVECTOR if postgresql else sa.Text, nullable=False),
    )
    op.create_index("ix_search_documents_conversation_id", "search_documents", ["conversation_id"])
    owners = _list_conversations(connection)
    _index_texts(connection, owners)
    if postgresql:
        op.create_index(
            "ix_search_documents_terms", "search_documents", ["terms"], postgresql_using="gin"
        )
    else:
        for statement in FTS5:
            connection.exec_driver_sql(statement)


def _list_conversations(connection: sa.Connection) -> dict[str, str]:
    """Add a row for each conversation; returns whose each is."""
    asked = (
        sa.select(turns.c.id, turns.c.conversation_id, turns.c.user_id, turns.c.created_at)
        .where(turns.c.conversation_id.not_like("import-%"), turns.c.user_id != API_USER)
        .order_by(turns.c.created_at, turns.c.id)
    )
    rows: dict[str, dict[str, Any]] = {}
    conversation_of: dict[str, str] = {}
    for turn in connection.execute(asked):
        row = rows.setdefault(
            turn.conversation_id,
            {
                "id": turn.conversation_id,
                "user_id": turn.user_id,
                "first": turn.id,
                "shown_answer_id": None,
            },
        )
        row["updated_at"] = turn.created_at
        if turn.user_id == row["user_id"]:
            conversation_of[turn.id] = turn.conversation_id
    given = sa.select(answers.c.id, answers.c.turn_id, answers.c.created_at)
    for answer in connection.execute(given.order_by(answers.c.created_at, answers.c.id)):
        if answer.turn_id in conversation_of:
            row = rows[conversation_of[answer.turn_id]]
            row["shown_answer_id"] = answer.id
            row["updated_at"] = max(row["updated_at"], answer.created_at)
    for batch in _batches(list(rows.values())):
        first = turns.c.id.in_([row["first"] for row in batch])
        questions = {
            row.id: row.question
            for row in connection.execute(sa.select(turns.c.id, turns.c.question).where(first))
        }
        titled = [{**row, "title": title_of(questions[row["first"]])} for row in batch]
        connection.execute(sa.text(INSERT_CONVERSATION), titled)
    return {row["id"]: row["user_id"] for row in rows.values()}


def _index_texts(connection: sa.Connection, owners: dict[str, str]) -> None:
    """Add a document for each question and answer, the oldest first, as hits are ordered."""
    asked = sa.select(turns.c.created_at, turns.c.id, sa.null(), turns.c.conversation_id).where(
        turns.c.conversation_id.not_like("import-%"), turns.c.user_id != API_USER
    )
    given = sa.select(
        answers.c.created_at, answers.c.turn_id, answers.c.id, turns.c.conversation_id
    ).join(turns, turns.c.id == answers.c.turn_id)
    texts = [tuple(row) for row in connection.execute(asked)]
    texts += [tuple(row) for row in connection.execute(given) if row.conversation_id in owners]
    texts.sort(key=lambda row: (row[0], row[2] is not None))
    insert = sa.text(INSERT_DOCUMENT.format(terms=TERMS[connection.dialect.name]))
    for batch in _batches(texts):
        said = _said(connection, batch)
        documents = [
            {
                "conversation_id": conversation_id,
                "answer_id": answer_id,
                "turn_id": None if answer_id else turn_id,
                "terms": document_terms(text, user_id),
            }
            for _, turn_id, answer_id, conversation_id in batch
            for user_id, text in [said[answer_id or turn_id]]
            if user_id == owners[conversation_id]
        ]
        if found := [document for document in documents if document["terms"]]:
            connection.execute(insert, found)


def _said(connection: sa.Connection, batch: list[Any]) -> dict[str, tuple[str, str]]:
    """The people who asked, and the texts, of questions and answers."""
    asked = sa.select(turns.c.id, turns.c.user_id, turns.c.question).where(
        turns.c.id.in_([turn_id for _, turn_id, answer_id, _ in batch if answer_id is None])
    )
    given = (
        sa.select(answers.c.id, turns.c.user_id, answers.c.text)
        .join(turns, turns.c.id == answers.c.turn_id)
        .where(answers.c.id.in_([answer_id for _, _, answer_id, _ in batch if answer_id]))
    )
    rows = [*connection.execute(asked), *connection.execute(given)]
    return {row[0]: (row[1], row[2]) for row in rows}


def _batches(rows: list[Any]) -> list[list[Any]]:
    return [rows[begin : begin + BATCH] for begin in range(0, len(rows), BATCH)]


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: events are never thrown away")
