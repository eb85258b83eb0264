"""The connection to the database, done right for SQLite, and its migrations.

SQLite runs through `pysqlite3` 0.6.1 (SQLite 3.53), since releases before 3.51.3 can corrupt a
database in WAL mode (sqlite.org/wal.html#walresetbug). Every writer begins with BEGIN IMMEDIATE,
so that a busy database makes it wait instead of failing half-way; synchronous=FULL makes what was
acknowledged durable; secure_delete overwrites what a person had erased. PostgreSQL is used by URL;
there a lock of the application's makes writers queue too, so that event numbers appear in the order
in which they were given, which readers of "everything since event N" rely on. On both, all queries
of one `read` see the same moment, and no error's text holds the values of a statement, which are
people's words.
"""

from __future__ import annotations

import functools
import re
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Insert,
    Table,
    column,
    create_engine,
    event,
    inspect,
    make_url,
    select,
    table,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from engine.errors import Conflict, DatabaseUnavailable, InvalidInput, StorageFull
from engine.home import Home
from engine.private_files import create_private

BUSY_TIMEOUT_MS = 30_000
SYNCHRONOUS = "FULL"  # what was committed survives a power failure; sqlite.org/pragma.html
# Of connections to a file, about one for each thread is kept; the threads bound how many are open
FILE_POOL: Mapping[str, int] = {"pool_size": 32, "max_overflow": -1}
VALUES_A_QUERY = 5_000
SQLITE_BUSY = 5  # sqlite.org/rescode.html; the codes of its kinds have it in their lowest byte
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

    def __init__(self, url: str | URL) -> None:
        self.url = url
        # Writers of this process wait here: SQLite's own way to wait is to sleep and look again
        self._writer = threading.Lock()
        self._engine = _engine(url)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading, on which time stands still.

        Raises `DatabaseUnavailable` when the database is damaged or does not answer.
        """
        with _translated(), self._connect("read") as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction, committed and durable when the block ends, else rolled back.

        Raises `StorageFull` when the disk is full or the database cannot be written, and
        `DatabaseUnavailable` when it is damaged or does not answer.
        """
        with _translated(), self._writer, self._connect("write") as connection, connection.begin():
            yield connection

    def _connect(self, purpose: Purpose) -> Connection:
        return self._engine.connect().execution_options(burnish_purpose=purpose)

    def migrate(self, scripts: Path, *, version_table: str) -> None:
        """Bring one floor's tables to their newest version; refuses a database newer than that."""
        with self.write() as connection:
            if _versions(connection, version_table) != [newest_version(scripts)]:
                # alembic takes as long to import as everything else that reads a database
                from feedback_store.storage.migration import upgrade

                upgrade(connection, scripts, version_table)

    def vacuum(self) -> None:
        """Write the tables anew without what was deleted from them, and empty SQLite's log.

        Raises `Conflict` while somebody's long look at the old rows is in the way.
        """
        with _translated(), self._writer, self._engine.connect() as bare:
            connection = bare.execution_options(isolation_level="AUTOCOMMIT")
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("VACUUM FULL")
                return
            _rebuild_indexes(connection)
            connection.exec_driver_sql("VACUUM")
            busy, *_ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
            if busy:
                raise Conflict("the database is being read; what was deleted is still in its log")

    def copy_file(self, target: Path) -> None:
        """Copy a SQLite database of one moment into a new file, while others read and write."""
        import pysqlite3.dbapi2

        create_private(target)
        with _translated(), self._engine.connect() as connection:
            copy = pysqlite3.dbapi2.connect(str(target))
            try:
                source: Any = connection.connection.driver_connection
                source.backup(copy)  # all pages in one step, which writers do not wait for
            finally:
                copy.close()

    def close(self) -> None:
        """Give back every connection."""
        self._engine.dispose()


def database_url(home: Home, url: str | None) -> str | URL:
    """The configured URL, or SQLite in the home folder, whatever characters its name has."""
    return url or URL.create("sqlite", database=str(home.database.absolute()))


def batches(values: Collection[Any]) -> Iterator[list[Any]]:
    """Values in order, as many at a time as a query may have (PostgreSQL takes 65,535)."""
    ordered = sorted(values)
    for begin in range(0, len(ordered), VALUES_A_QUERY):
        yield ordered[begin : begin + VALUES_A_QUERY]


def insert_once(connection: Connection, into: Table, *rows: Mapping[str, Any]) -> None:
    """Insert rows unless their unique key is there already: a replay changes nothing."""
    connection.execute(_insert_once(connection.dialect.name, into), [dict(row) for row in rows])


@functools.cache
def _insert_once(dialect: str, into: Table) -> Insert:
    """The statement, made once: to build it takes as long as to execute it."""
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(into).on_conflict_do_nothing()


@functools.cache
def newest_version(scripts: Path) -> str | None:
    """The version that the last file of a folder of migrations makes, by the order of their names.

    It is read without running the file; None where the file names none.
    """
    last = max((scripts / "versions").glob("[0-9]*.py"), key=lambda file: file.name)
    found = re.search(r'^revision = "(\w+)"$', last.read_text("utf-8"), re.MULTILINE)
    return found[1] if found else None


def _versions(connection: Connection, version_table: str) -> list[str]:
    """The versions that alembic has recorded in its table; empty in a new database."""
    if not inspect(connection).has_table(version_table):
        return []
    recorded = table(version_table, column("version_num"))
    return list(connection.execute(select(recorded.c.version_num)).scalars())


def _engine(url: str | URL) -> Engine:
    """Raises `InvalidInput` for a URL of any other database."""
    known = {"sqlite": _sqlite, "postgresql": _postgresql, "postgres": _postgresql}
    try:
        parsed = make_url(url)
        make = known[parsed.get_backend_name()]
    except (ArgumentError, KeyError):
        kind = re.split(r"[+:]", str(url), maxsplit=1)[0]
        raise InvalidInput(
            f"unknown kind of database {kind[:40]!r}; known: sqlite, postgresql"
        ) from None
    return make(parsed)


def _sqlite(url: URL) -> Engine:
    import pysqlite3.dbapi2

    if url.database and not url.query and url.database != ":memory:":
        # SQLite gives its -wal and -shm files the mode of this one
        create_private(Path(url.database))
    dialect: Any = url.get_dialect()  # SQLAlchemy's type for it lacks the method
    pooled = dialect.get_pool_class(url) is QueuePool  # not a database in memory
    engine = create_engine(
        url,
        module=pysqlite3.dbapi2,
        connect_args={"check_same_thread": False},
        hide_parameters=True,
        **(FILE_POOL if pooled else {}),
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        _switch_to_wal(cursor)
        for pragma in (f"synchronous={SYNCHRONOUS}", "foreign_keys=ON", "secure_delete=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    _begin_with(engine, SQLITE_BEGIN)
    return engine


def _rebuild_indexes(connection: Connection) -> None:
    """Write full-text indexes anew, which else keep deleted words for a long time.

    Of words that its `secure-delete` option deletes, FTS5 3.53 keeps those that it finds its pages
    by; and with that option, deleting takes 60 times as long.
    """
    query = "SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL TABLE %USING fts5%'"
    for name in connection.exec_driver_sql(query).scalars().all():
        connection.exec_driver_sql(f"INSERT INTO {name} ({name}) VALUES ('rebuild')")  # noqa: S608


def _switch_to_wal(cursor: Any) -> None:
    """Set the journal mode, and try again while another connection is setting it.

    In a new database both have begun to read and want to write. SQLite answers one of them
    "database is locked" at once, whatever its timeout, since each would wait for the other.
    Raises `OperationalError` after `BUSY_TIMEOUT_MS`.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except cursor.connection.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _postgresql(url: URL) -> Engine:
    """Through psycopg 3, whatever driver the URL leaves open."""
    engine = create_engine(url.set(drivername="postgresql+psycopg"), hide_parameters=True)

    @event.listens_for(engine, "handle_error")
    def leave_out_details(context: ExceptionContext) -> None:
        """Keep the message's first part: PostgreSQL's DETAIL and CONTEXT quote the row."""
        original, wrapped = context.original_exception, context.sqlalchemy_exception
        primary = getattr(getattr(original, "diag", None), "message_primary", None)
        if primary is not None and wrapped is not None:
            original.args = (primary,)
            wrapped.args = (f"({type(original).__name__}) {primary}",)

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
    """Turn a full or read-only disk into `StorageFull`, and what no statement is to blame for (a
    damaged file, a server that is gone) into `DatabaseUnavailable`."""
    try:
        yield
    except DatabaseError as error:
        if not isinstance(error, OperationalError) and type(error) is not DatabaseError:
            raise  # a constraint or a mistake in a statement
        reason = str(error.orig).strip()
        if any(word in reason for word in ("full", "disk I/O", "readonly", "No space")):
            raise StorageFull(f"not saved: {reason}") from error
        raise DatabaseUnavailable(
            f"the database cannot be used: {reason}; restore it from a backup if it is damaged"
        ) from error
