"""What only PostgreSQL could get wrong. All that both databases do is tested on both elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import DBAPIError

from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import Conversations
from tests.postgresql import Server

pytestmark = pytest.mark.integration
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.fixture
def url(postgresql: Server) -> str:
    return postgresql.create()


@pytest.fixture
def other(url: str) -> Iterator[Database]:
    """Another server's connection."""
    database = Database(url)
    yield database
    database.close()


def test_an_event_never_appears_after_one_with_a_higher_number(
    store: FeedbackStore, talk: Conversations, database: Database, other: Database
) -> None:
    """A reader that has seen event 2 never looks for event 1 again."""
    answers = [talk.ask(conversation=name) for name in ("c1", "c2")]
    reader, other_store = EvidenceReader(database), FeedbackStore(other)
    with ThreadPoolExecutor(1) as pool:
        with database.write() as connection:
            connection.exec_driver_sql(
                "INSERT INTO events (idempotency_key, kind, answer_id, user_id, vote, created_at)"
                f" VALUES ('slow', 'vote', '{answers[0]}', 'ann', 1, 0)"
            )  # event 1, not committed yet
            fast = pool.submit(other_store.vote, answers[1], "ann", 1)
            while waiting_writers(other) == 0:
                assert not fast.done()
            assert reader.judged_since(0) == set()
        fast.result()
    assert reader.judged_since(0) == {"c1", "c2"}


def waiting_writers(database: Database) -> int:
    """How many stand in line."""
    with database.read() as connection:
        return int(connection.exec_driver_sql(WAITING).scalar_one())


def test_reading_never_writes(store: FeedbackStore, database: Database) -> None:
    with pytest.raises(DBAPIError, match="read-only"), database.read() as connection:
        connection.exec_driver_sql("DELETE FROM events")


@pytest.mark.parametrize("kind", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_url_may_name_the_driver_or_leave_it_open(
    store: FeedbackStore, url: str, kind: str
) -> None:
    named = url.replace("postgresql", kind, 1)
    database = Database(named)
    assert FeedbackStore(database).event_count() == 0
    database.close()


def test_what_was_deleted_is_not_in_the_tables_files_after_a_vacuum(
    store: FeedbackStore, talk: Conversations, database: Database, url: str
) -> None:
    for number in range(50):
        talk.ask(f"canary {number} " + "x" * 100, conversation=f"c{number}")

    def pages() -> int:
        with database.read() as connection:
            size = connection.exec_driver_sql("SELECT pg_relation_size('turns')").scalar_one()
        return int(size) // 8192

    assert pages() > 1
    with database.write() as connection:
        connection.exec_driver_sql("DELETE FROM answers")
        connection.exec_driver_sql("DELETE FROM turns")
    assert pages() > 1  # the rows are out of sight and still there
    database.vacuum()
    assert pages() == 0
