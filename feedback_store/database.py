"""The connection to the database, done right for SQLite, and its migrations.

SQLite runs through `pysqlite3` 0.6.1 (SQLite 3.53), since releases before 3.51.3 can corrupt a
database in WAL mode (sqlite.org/wal.html#walresetbug). Every writer begins with BEGIN IMMEDIATE,
so that a busy database makes it wait instead of failing half-way; synchronous=FULL makes what was
acknowledged durable. PostgreSQL is used by URL.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from engine.errors import BurnishError, StorageFull

BUSY_TIMEOUT_MS = 30_000


class Database:
    """One database; `read` and `write` give short transactions."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = _sqlite(url) if url.startswith("sqlite") else create_engine(url)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading."""
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction, committed and durable when the block ends, else rolled back.

        Raises `StorageFull` when the disk is full or the database cannot be written.
        """
        try:
            writer = self._engine.connect().execution_options(burnish_writer=True)
            with writer as connection, connection.begin():
                yield connection
        except OperationalError as error:
            reason = str(error.orig)
            if any(word in reason for word in ("full", "disk I/O", "readonly", "No space")):
                raise StorageFull(f"not saved: {reason}") from error
            raise

    def migrate(self, scripts: Path, *, version_table: str) -> None:
        """Bring one floor's tables to their newest version; refuses a database newer than that."""
        config = Config()
        config.set_main_option("script_location", str(scripts))
        with self.write() as connection:
            config.attributes.update(connection=connection, version_table=version_table)
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise BurnishError(
                    f"the database was written by a newer Burnish ({error}); upgrade Burnish"
                ) from error

    def close(self) -> None:
        """Give back every connection."""
        self._engine.dispose()


def database_url(home: Path, url: str | None) -> str:
    """The configured URL, or SQLite in the home folder."""
    return url or f"sqlite:///{home / 'burnish.db'}"


def _sqlite(url: str) -> Engine:
    import pysqlite3.dbapi2

    engine = create_engine(url, module=pysqlite3.dbapi2, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writer = connection.get_execution_options().get("burnish_writer")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")

    return engine
