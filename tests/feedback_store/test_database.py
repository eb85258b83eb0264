"""The database is set up for durability, upgraded in place, and never read by an older version."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect

from engine.errors import BurnishError, StorageFull
from feedback_store import tables
from feedback_store.database import Database, database_url
from feedback_store.store import FeedbackStore
from tests.feedback_store.conftest import Conversations


def pragma(connection: object, name: str) -> object:
    return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()  # type: ignore[attr-defined]


def test_every_connection_is_durable_and_checks_foreign_keys(database: Database) -> None:
    with database.read() as one, database.write() as other:
        for connection in (one, other):
            assert pragma(connection, "journal_mode") == "wal"
            assert pragma(connection, "synchronous") == 2  # FULL
            assert pragma(connection, "foreign_keys") == 1


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


def test_opening_a_migrated_database_again_keeps_its_rows(url: str) -> None:
    first = Database(url)
    answer_id = Conversations(FeedbackStore(first)).ask("Q", "A")
    first.close()
    second = Database(url)
    assert [m.content for m in FeedbackStore(second).history(answer_id, "ann")] == ["Q", "A"]
    second.close()


def test_a_database_from_a_newer_version_is_refused_and_left_alone(
    store: FeedbackStore, talk: Conversations, database: Database, url: str
) -> None:
    answer_id = talk.ask()
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version_feedback SET version_num = 'next_9999'")
    later = Database(url)
    with pytest.raises(BurnishError, match=r"newer Burnish.*next_9999.*upgrade Burnish"):
        FeedbackStore(later)
    later.close()
    assert store.answer(answer_id, "ann").text == "A leaf."


def test_a_migration_killed_half_way_leaves_an_empty_database(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic.operations import Operations

    class Killed(Exception):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Operations, "execute", die)  # the view comes last, after all tables
        with pytest.raises(Killed):
            FeedbackStore(database)
    with database.read() as connection:
        assert inspect(connection).get_table_names() == []
    assert FeedbackStore(database).event_count() == 0


def test_servers_that_start_together_can_share_a_new_database(url: str) -> None:
    together = threading.Barrier(4)

    def start(number: int) -> str:
        database = Database(url)
        together.wait()
        answer_id = Conversations(FeedbackStore(database)).ask(text=f"from server {number}")
        database.close()
        return answer_id

    with ThreadPoolExecutor(4) as servers:
        answers = list(servers.map(start, range(4)))
    database = Database(url)
    store = FeedbackStore(database)
    assert [store.answer(a, "ann").text for a in answers] == [f"from server {n}" for n in range(4)]
    database.close()


def test_the_tables_in_the_code_are_those_of_the_migrations(
    store: FeedbackStore, database: Database
) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": "alembic_version_feedback", "compare_type": True}
        )
        assert compare_metadata(context, tables.metadata) == []


def test_the_checks_in_the_code_are_those_of_the_migrations(
    store: FeedbackStore, database: Database
) -> None:
    fresh = create_engine("sqlite://")
    tables.metadata.create_all(fresh)
    with database.read() as migrated, fresh.connect() as expected:
        for name in tables.metadata.tables:
            found = inspect(migrated).get_check_constraints(name)
            assert found == inspect(expected).get_check_constraints(name)


def test_the_database_is_in_the_home_folder_unless_configured(tmp_path: Path) -> None:
    assert database_url(tmp_path, None) == f"sqlite:///{tmp_path}/burnish.db"
    assert database_url(tmp_path, "postgresql://db/burnish") == "postgresql://db/burnish"
