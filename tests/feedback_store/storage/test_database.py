"""SQLite is set up for durability, and says what it could not do. Most other tests are on both."""

from __future__ import annotations

import os
import shutil
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pysqlite3.dbapi2
import pytest
from sqlalchemy import Connection

from engine.errors import Conflict, DatabaseUnavailable, InvalidInput, StorageFull
from engine.home import Home
from feedback_store.storage import database as database_module
from feedback_store.storage import tables
from feedback_store.storage.database import SYNCHRONOUS, Database, database_url
from feedback_store.storage.store import MIGRATIONS, FeedbackStore
from tests.feedback_store.conftest import Conversations, sqlite_url
from tests.feedback_store.people import files_with


@pytest.fixture
def url(tmp_path: Path) -> str:
    return sqlite_url(tmp_path)


def pragma(connection: Connection, name: str) -> object:
    return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


def pragma_set(connection: Connection, setting: str) -> None:
    connection.exec_driver_sql(f"PRAGMA {setting}")


def test_every_connection_is_durable_and_checks_foreign_keys(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "SYNCHRONOUS", SYNCHRONOUS)  # the tests have another
    database = Database(url)
    with database.read() as one, database.write() as other:
        for connection in (one, other):
            assert pragma(connection, "journal_mode") == "wal"
            assert pragma(connection, "synchronous") == 2  # FULL
            assert pragma(connection, "foreign_keys") == 1
            assert pragma(connection, "secure_delete") == 1
    database.close()


def test_sqlite_is_new_enough_not_to_corrupt_in_wal_mode(database: Database) -> None:
    with database.read() as connection:
        version = connection.exec_driver_sql("SELECT sqlite_version()").scalar_one()
    assert tuple(map(int, version.split("."))) >= (3, 51, 3)


def test_a_failed_transaction_leaves_nothing(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        connection.execute(tables.templates.insert().values(hash="x", definition={}))
        raise ZeroDivisionError
    with database.read() as connection:
        assert connection.execute(tables.templates.select()).all() == []


def test_a_full_disk_refuses_the_vote_and_keeps_the_rest(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    answer_id = talk.ask()
    with database.read() as connection:  # the one pooled connection, which keeps the limit
        pages = pragma(connection, "page_count")
        pragma(connection, f"max_page_count={pages}")
    with pytest.raises(StorageFull, match="not saved"):
        store.correct(answer_id, "ann", "a" * 300_000)
    assert store.event_count() == 0
    with database.read() as connection:
        pragma(connection, "max_page_count=1000000")
    store.correct(answer_id, "ann", "a" * 300_000)
    assert store.event_count() == 1


def test_a_disk_that_cannot_be_written_is_said(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    answer_id = talk.ask()
    with database.read() as connection:  # the one pooled connection
        pragma_set(connection, "query_only=ON")
    with pytest.raises(StorageFull, match=r"not saved: .*readonly"):
        store.vote(answer_id, "ann", 1)
    with database.read() as connection:
        pragma_set(connection, "query_only=OFF")
    store.vote(answer_id, "ann", 1)


def test_what_was_deleted_is_in_no_file_after_a_vacuum(
    store: FeedbackStore, talk: Conversations, database: Database, tmp_path: Path
) -> None:
    talk.ask("canary question", "canary answer " * 1000)
    assert files_with(tmp_path, ["canary"]) != []
    with database.write() as connection:
        for table in reversed(tables.feedback_metadata.sorted_tables):
            connection.execute(table.delete())
    database.vacuum()
    assert files_with(tmp_path, ["canary"]) == []


def test_a_vacuum_that_cannot_empty_the_log_says_so(
    store: FeedbackStore, talk: Conversations, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_MS", 10)
    impatient = Database(database.url)
    talk.ask()
    with database.read() as connection:
        connection.execute(tables.turns.select()).all()  # somebody is still looking at this moment
        with pytest.raises(Conflict, match="being read"):
            impatient.vacuum()
    impatient.vacuum()
    impatient.close()


def test_one_process_writes_at_a_time_and_the_others_wait(
    store: FeedbackStore, url: str, database: Database
) -> None:
    """Connections of their own, as processes have; each reads what it then writes."""
    each, writers = 20, 4
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE counter (value INTEGER)")
        connection.exec_driver_sql("INSERT INTO counter VALUES (0)")

    def count(_writer: int) -> None:
        own = Database(url)
        for _ in range(each):
            with own.write() as connection:
                value = connection.exec_driver_sql("SELECT value FROM counter").scalar_one()
                connection.exec_driver_sql(f"UPDATE counter SET value = {value + 1}")
        own.close()

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(count, range(writers)))
    with database.read() as connection:
        total = connection.exec_driver_sql("SELECT value FROM counter").scalar_one()
    assert total == each * writers


@pytest.mark.parametrize("url", ["mysql://host/db", "burnish.db", "", "sqlite3:x", "duckdb:///x"])
def test_any_other_kind_of_database_is_refused_by_name(url: str) -> None:
    with pytest.raises(InvalidInput, match="known: sqlite, postgresql"):
        Database(url)


def test_the_database_is_in_the_home_folder_unless_configured(tmp_path: Path) -> None:
    database = Database(database_url(Home(tmp_path), None))
    FeedbackStore(database)
    database.close()
    assert (tmp_path / "burnish.db").is_file()
    assert database_url(Home(tmp_path), "postgresql://db/burnish") == "postgresql://db/burnish"


@pytest.mark.parametrize(
    "name",
    ["a?b", "a%41", "a%b", "a b", "a#b", "[x]", "ü", "%s", "a'b\"", "a;b", "~x", "{x}", "file:x"],
)
def test_the_database_is_in_the_folder_of_that_name(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    home.mkdir()
    database = Database(database_url(Home(home), None))
    FeedbackStore(database)
    database.close()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (home / "burnish.db").read_bytes().startswith(b"SQLite format 3")


def test_migrations_may_be_in_a_folder_of_any_name(tmp_path: Path) -> None:
    scripts = tmp_path / "100%(here)s"
    shutil.copytree(MIGRATIONS, scripts)
    database = Database(sqlite_url(tmp_path))
    database.migrate(scripts, version_table="alembic_version_feedback")
    assert FeedbackStore(database).event_count() == 0
    database.close()


def test_only_its_owner_may_read_the_database_from_the_first_moment(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        database = Database(sqlite_url(tmp_path))
        assert mode(tmp_path / "burnish.db") == 0o600  # before a byte is in it
        store = FeedbackStore(database)
        assert store.event_count() == 0
        names = [path.name for path in tmp_path.iterdir()]
        assert sorted(names) == ["burnish.db", "burnish.db-shm", "burnish.db-wal"]
        assert {mode(path) for path in tmp_path.iterdir()} == {0o600}
        (tmp_path / "burnish.db").chmod(0o644)  # as older versions made it
        Database(sqlite_url(tmp_path)).close()
        assert mode(tmp_path / "burnish.db") == 0o600
        database.close()
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_damaged_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "burnish.db").write_bytes(b"this is no database" * 500)
    database = Database(sqlite_url(tmp_path))
    with pytest.raises(DatabaseUnavailable, match="file is not a database"):
        FeedbackStore(database)
    with pytest.raises(DatabaseUnavailable, match="file is not a database"), database.read():
        pass


def test_a_database_that_stays_locked_is_said(
    store: FeedbackStore, url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_MS", 10)
    impatient = Database(url)
    with (
        database.write(),
        pytest.raises(DatabaseUnavailable, match="database is locked"),
        impatient.write(),
    ):
        pass
    impatient.close()


def test_whoever_opens_a_new_database_while_another_writes_its_first_table_waits(
    tmp_path: Path,
) -> None:
    """SQLite refuses the switch to WAL at once then; its own timeout does not apply."""
    first = pysqlite3.dbapi2.connect(tmp_path / "burnish.db", isolation_level=None)
    first.execute("BEGIN IMMEDIATE")
    first.execute("CREATE TABLE first (value)")
    second = Database(sqlite_url(tmp_path))

    def tables() -> list[str]:
        with second.read() as connection:
            names = connection.exec_driver_sql("SELECT name FROM sqlite_master").scalars()
            return [str(name) for name in names]

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(tables)
        time.sleep(0.2)
        assert not found.done()
        first.execute("COMMIT")
        first.close()
        assert found.result(timeout=10) == ["first"]
    second.close()


def test_a_database_that_does_not_answer_is_said() -> None:
    database = Database("postgresql://burnish@127.0.0.1:1/burnish?connect_timeout=2")
    with pytest.raises(DatabaseUnavailable, match="cannot be used"):
        FeedbackStore(database)
