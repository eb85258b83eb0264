"""The connection to the database, done right for SQLite, and its migrations.

SQLite runs through `pysqlite3` 0.6.1 (SQLite 3.53), since releases before 3.51.3 can corrupt a
database in WAL mode (sqlite.org/wal.html#walresetbug). Every writer begins with BEGIN IMMEDIATE,
so that a busy database makes it wait instead of failing half-way; synchronous=FULL makes what was
acknowledged durable; secure_delete overwrites what a person had erased. PostgreSQL is used by URL;
there a lock of the application's makes writers queue too, so that event numbers appear in the order
in which they were given, which readers of "everything since event N" rely on. On both, all queries
of one `read` see the same moment.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from engine.errors import BurnishError, Conflict, InvalidInput, StorageFull

BUSY_TIMEOUT_MS = 30_000
WRITERS_LOCK = 0x6275726E  # any number that no other application's lock has
# How a transaction for reading and one for writing begin. Anything else begins by itself
Purpose = Literal["read", "write"]
SQLITE_BEGIN: Mapping[Purpose, str] = {"read": "BEGIN", "write": "BEGIN IMMEDIATE"}
POSTGRESQL_BEGIN: Mapping[Purpose, str] = {
    "read": "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
    "write": f"SELECT pg_advisory_xact_lock({WRITERS_LOCK})",
}


class Database:
    """One database; `read` and `write` give short transactions."""

    def __init__(self, url: str) -> None:
        self.url = url
        # Writers of this process wait here: SQLite's own way to wait is to sleep and look again
        self._writer = threading.Lock()
        self._engine = _engine(url)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading, on which time stands still."""
        with self._connect("read") as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction, committed and durable when the block ends, else rolled back.

        Raises `StorageFull` when the disk is full or the database cannot be written.
        """
        with _translated(), self._writer, self._connect("write") as connection, connection.begin():
            yield connection

    def _connect(self, purpose: Purpose) -> Connection:
        return self._engine.connect().execution_options(burnish_purpose=purpose)

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

    def vacuum(self) -> None:
        """Write the tables anew without what was deleted from them, and empty SQLite's log.

        Raises `Conflict` while somebody's long look at the old rows is in the way.
        """
        with _translated(), self._writer, self._engine.connect() as bare:
            connection = bare.execution_options(isolation_level="AUTOCOMMIT")
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("VACUUM FULL")
                return
            connection.exec_driver_sql("VACUUM")
            busy, *_ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
            if busy:
                raise Conflict("the database is being read; what was deleted is still in its log")

    def close(self) -> None:
        """Give back every connection."""
        self._engine.dispose()


def database_url(home: Path, url: str | None) -> str:
    """The configured URL, or SQLite in the home folder."""
    return url or f"sqlite:///{home / 'burnish.db'}"


def insert_once(connection: Connection, into: Table, *rows: Mapping[str, Any]) -> None:
    """Insert rows unless their unique key is there already: a replay changes nothing."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(dialect.insert(into).on_conflict_do_nothing(), [dict(row) for row in rows])


def _engine(url: str) -> Engine:
    """Raises `InvalidInput` for a URL of any other database."""
    kind = re.split(r"[+:]", url, maxsplit=1)[0]
    known = {"sqlite": _sqlite, "postgresql": _postgresql, "postgres": _postgresql}
    if kind not in known:
        raise InvalidInput(f"unknown kind of database {kind[:40]!r}; known: sqlite, postgresql")
    return known[kind](url)


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
            "secure_delete=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    _begin_with(engine, SQLITE_BEGIN)
    return engine


def _postgresql(url: str) -> Engine:
    """Through psycopg 3, whatever driver the URL leaves open."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    _begin_with(engine, POSTGRESQL_BEGIN)
    return engine


def _begin_with(engine: Engine, statements: Mapping[Purpose, str]) -> None:
    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        purpose = connection.get_execution_options().get("burnish_purpose")
        if purpose is not None:
            connection.exec_driver_sql(statements[purpose])


@contextmanager
def _translated() -> Iterator[None]:
    """Turn a full or read-only disk into `StorageFull`."""
    try:
        yield
    except OperationalError as error:
        reason = str(error.orig)
        if any(word in reason for word in ("full", "disk I/O", "readonly", "No space")):
            raise StorageFull(f"not saved: {reason}") from error
        raise
