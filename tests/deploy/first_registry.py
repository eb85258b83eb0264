"""The registry's tables as Burnish 0.1 made them, before alembic's first change to them."""

from __future__ import annotations

from collections.abc import Iterable

from feedback_store.storage.database import Database

TABLES = (
    "CREATE TABLE releases (bundle VARCHAR(71) NOT NULL PRIMARY KEY, report JSON NOT NULL,"
    " created_at FLOAT NOT NULL)",
    "CREATE TABLE live (id INTEGER NOT NULL PRIMARY KEY, bundle VARCHAR(71),"
    " generation INTEGER NOT NULL, CONSTRAINT ck_live_one_row CHECK (id = 1))",
    "CREATE TABLE release_history (generation BIGINT NOT NULL PRIMARY KEY,"
    " action VARCHAR(16) NOT NULL, bundle VARCHAR(71), previous VARCHAR(71),"
    " note TEXT NOT NULL, at FLOAT NOT NULL)",
    "CREATE TABLE servers (id VARCHAR(32) NOT NULL PRIMARY KEY, generation INTEGER NOT NULL,"
    " bundle VARCHAR(71), seen_at FLOAT NOT NULL)",
    "CREATE TABLE alembic_version_deploy (version_num VARCHAR(32) NOT NULL PRIMARY KEY)",
)


def make_registry(database: Database, version: str, statements: Iterable[str]) -> None:
    """Make the tables, say that they have a version of the schema, and run more statements."""
    versioned = f"INSERT INTO alembic_version_deploy VALUES ('{version}')"
    for statement in (*TABLES, versioned, *statements):
        with database.write() as connection:
            connection.exec_driver_sql(statement)
