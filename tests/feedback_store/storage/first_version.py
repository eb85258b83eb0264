"""The first released version, feedback_0001: its tables, and somebody's conversation in them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from feedback_store.storage.database import Database
from tests.feedback_store.conftest import PLAIN

TABLES_0001 = """
CREATE TABLE templates (hash VARCHAR(71) NOT NULL PRIMARY KEY, definition JSON NOT NULL);
CREATE TABLE turns (
    id VARCHAR(32) NOT NULL PRIMARY KEY, conversation_id VARCHAR(64) NOT NULL,
    parent_answer_id VARCHAR(32), user_id VARCHAR(64) NOT NULL, question TEXT NOT NULL,
    mode VARCHAR(16) NOT NULL,
    template_hash VARCHAR(71) NOT NULL REFERENCES templates (hash),
    prompt JSON, created_at FLOAT NOT NULL);
CREATE INDEX ix_turns_conversation_id ON turns (conversation_id);
CREATE TABLE answers (
    id VARCHAR(32) NOT NULL PRIMARY KEY,
    turn_id VARCHAR(32) NOT NULL REFERENCES turns (id),
    status VARCHAR(16) NOT NULL, text TEXT NOT NULL, thought TEXT NOT NULL,
    complete INTEGER NOT NULL, base_digest VARCHAR(71) NOT NULL, adapter_digest VARCHAR(71),
    sampling JSON NOT NULL, seed BIGINT NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER,
    error TEXT, created_at FLOAT NOT NULL, finished_at FLOAT,
    CONSTRAINT ck_answers_status
        CHECK (status IN ('streaming', 'done', 'stopped', 'failed', 'aborted')));
CREATE INDEX ix_answers_turn_id ON answers (turn_id);
CREATE INDEX ix_answers_status ON answers (status);
CREATE TABLE events (
    id {serial} NOT NULL PRIMARY KEY, idempotency_key VARCHAR(64) NOT NULL,
    kind VARCHAR(16) NOT NULL, answer_id VARCHAR(32) NOT NULL REFERENCES answers (id),
    user_id VARCHAR(64) NOT NULL, vote INTEGER, correction TEXT, created_at FLOAT NOT NULL,
    CONSTRAINT ck_events_kind CHECK (
        (kind = 'vote' AND vote IN (-1, 0, 1) AND correction IS NULL)
        OR (kind = 'correction' AND correction IS NOT NULL AND vote IS NULL)),
    CONSTRAINT uq_events_user_id_idempotency_key UNIQUE (user_id, idempotency_key));
CREATE INDEX ix_events_answer_id_user_id_kind ON events (answer_id, user_id, kind);
CREATE VIEW current_feedback AS SELECT e.* FROM events e JOIN (
    SELECT max(id) AS id FROM events GROUP BY answer_id, user_id, kind
) latest ON latest.id = e.id;
CREATE TABLE alembic_version_feedback (version_num VARCHAR(32) NOT NULL PRIMARY KEY);
INSERT INTO alembic_version_feedback VALUES ('feedback_0001');
"""
TEMPLATE_ROWS = [(PLAIN.hash, '{"mode": "plain", "system": "", "instruction": "", "examples": []}')]
TURN_ROWS = [
    (
        "t1",
        "c1",
        None,
        "ann",
        "What is a leaf? \N{LEAF FLUTTERING IN WIND}",
        "plain",
        PLAIN.hash,
        None,
        1.25,
    ),
    (
        "t2",
        "c1",
        "a2",
        "ann",
        "And a root?",
        "plain",
        PLAIN.hash,
        '[{"role": "user", "content": "And a root?"}]',
        2.5,
    ),
]
ANSWER_ROWS = [
    ("a1", "t1", "done", "A leaf.", "", 1, "sha256:base", None, "{}", 2**62, 5, 3, None, 1.5, 1.75),
    (
        "a2",
        "t1",
        "stopped",
        "A gr",
        "Hm.",
        0,
        "sha256:base",
        "sha256:b",
        '{"stop": ["x"]}',
        0,
        5,
        2,
        None,
        1.5,
        2.0,
    ),
    (
        "a3",
        "t2",
        "failed",
        "",
        "",
        0,
        "sha256:base",
        None,
        "{}",
        0,
        None,
        None,
        "out of memory",
        3.0,
        None,
    ),
]
EVENT_ROWS = [  # with a gap, as a rolled back transaction leaves
    (1, "k1", "vote", "a1", "ann", 1, None, 4.0),
    (2, "k2", "vote", "a1", "ann", -1, None, 5.0),
    (7, "k3", "correction", "a2", "ann", None, "A green \N{HERB} thing.", 6.0),
    (9, "k4", "vote", "a2", "ann", 1, None, 7.0),
    (12, "k5", "vote", "a2", "ann", 0, None, 8.0),
]
ROWS_0001: dict[str, list[tuple[Any, ...]]] = {
    "templates": TEMPLATE_ROWS,
    "turns": TURN_ROWS,
    "answers": ANSWER_ROWS,
    "events": EVENT_ROWS,
}


def write_0001(database: Database) -> None:
    """The database as Burnish 0.1 left it."""
    with database.write() as connection:
        postgresql = connection.dialect.name == "postgresql"
        script = TABLES_0001.format(serial="BIGSERIAL" if postgresql else "INTEGER")
        for statement in script.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
        for name, rows in ROWS_0001.items():
            for row in rows:
                places = ", ".join(f":v{place}" for place in range(len(row)))
                values = {f"v{place}": value for place, value in enumerate(row)}
                connection.execute(text(f"INSERT INTO {name} VALUES ({places})"), values)
        if postgresql:
            connection.exec_driver_sql("SELECT setval('events_id_seq', 12)")


def rows_of_0001(database: Database) -> dict[str, list[Any]]:
    """The rows of all tables of that version, in its columns."""
    columns = dict.fromkeys(ROWS_0001, "*")
    columns["turns"] = (
        "id, conversation_id, parent_answer_id, user_id, question, mode, template_hash, prompt,"
        " created_at"
    )
    columns["answers"] = (
        "id, turn_id, status, text, thought, complete, base_digest, adapter_digest, sampling, seed,"
        " prompt_tokens, completion_tokens, error, created_at, finished_at"
    )
    columns["events"] = (
        "id, idempotency_key, kind, answer_id, user_id, vote, correction, created_at"
    )
    columns["turns"] = (
        "id, conversation_id, parent_answer_id, user_id, question, mode, template_hash, prompt,"
        " created_at"
    )
    with database.read() as connection:
        return {
            name: [*connection.exec_driver_sql(f"SELECT {names} FROM {name} ORDER BY 1")]
            for name, names in columns.items()
        }
