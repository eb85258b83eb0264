"""Migrated databases. Each is a copy of one file: migrating takes 0.1 s."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from deploy.releases.registry import Registry
from engine.home import Home
from feedback_store.accounts.accounts import Accounts
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore


def migrate(url: str) -> None:
    """Make the tables of the feedback store, of accounts and of the releases."""
    database = Database(url)
    FeedbackStore(database)
    Accounts(database)
    Registry(database)
    database.close()


@functools.cache
def migrated_database() -> bytes:
    """A SQLite file with every table and no row."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "burnish.db"
        migrate(f"sqlite:///{path}")
        return path.read_bytes()


def migrated_sqlite(folder: Path) -> str:
    """The URL of a database with all tables and no row in a folder."""
    path = Home(folder).database
    path.touch(mode=0o600)
    path.write_bytes(migrated_database())
    return f"sqlite:///{path}"
