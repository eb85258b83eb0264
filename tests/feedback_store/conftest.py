"""A fresh store, in SQLite and again in PostgreSQL, and a short way to have a conversation in it.

A module that is about SQLite alone has a fixture `url` of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.prompts.modes import PromptTemplate, make_template
from feedback_store.curation.decisions import Curation
from feedback_store.records import AnswerStatus
from feedback_store.storage import tables
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.postgresql import Server, running

PLAIN = make_template("plain", ())


def sqlite_url(folder: Path) -> str:
    """A database file in a folder."""
    return f"sqlite:///{folder / 'burnish.db'}"


class Conversations:
    """Asks, answers and regenerates in a store, with the values a test does not care about."""

    def __init__(self, store: FeedbackStore) -> None:
        self._store = store

    def ask(
        self,
        question: str = "What is a leaf?",
        text: str = "A leaf.",
        *,
        user: str = "ann",
        conversation: str = "c1",
        parent: str | None = None,
        template: PromptTemplate = PLAIN,
    ) -> str:
        """A finished answer to a new turn; returns the answer's id."""
        turn = self._store.add_turn(
            user_id=user,
            question=question,
            template=template,
            conversation_id=conversation,
            parent_answer_id=parent,
        )
        return self.finish(self.begin(turn.id), text)

    def again(self, answer_id: str, text: str, *, user: str = "ann") -> str:
        """Another finished answer to the same turn."""
        return self.finish(self.begin(self._store.turn_of(answer_id, user).id), text)

    def begin(self, turn_id: str) -> str:
        """An answer that is still streaming."""
        return self._store.begin_answer(
            turn_id, base_digest="sha256:base", adapter_digest=None, sampling={}, seed=0
        )

    def finish(self, answer_id: str, text: str, status: AnswerStatus = "done") -> str:
        """End an answer."""
        self._store.finish_answer(answer_id, status=status, text=text, complete=True)
        return answer_id


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A real server; skips where there is none."""
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_url(postgresql: Server) -> str:
    """A database with all tables, which tests empty and use one after the other."""
    url = postgresql.create()
    database = Database(url)
    FeedbackStore(database)
    database.close()
    return url


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with all tables and no row, to be copied: migrating takes 0.1 s."""
    folder = tmp_path_factory.mktemp("migrated")
    database = Database(sqlite_url(folder))
    FeedbackStore(database)
    database.close()
    return folder / "burnish.db"


@pytest.fixture
def sqlite(migrated: Path, tmp_path: Path) -> str:
    """The URL of a migrated SQLite database of the test's own."""
    shutil.copy(migrated, tmp_path)
    return sqlite_url(tmp_path)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        found: str = request.getfixturevalue("sqlite")
        return found
    url: str = request.getfixturevalue("postgresql_url")
    _empty(url)
    return url


def _empty(url: str) -> None:
    """Delete all rows; numbers begin at 1 again."""
    database = Database(url)
    with database.write() as connection:
        for table in reversed(tables.feedback_metadata.sorted_tables):
            connection.execute(table.delete())
            if "id" in table.c and table.c.id.autoincrement is True:
                connection.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), 1, false)"
                )
    database.close()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> FeedbackStore:
    return FeedbackStore(database)


@pytest.fixture
def talk(store: FeedbackStore) -> Conversations:
    return Conversations(store)


@pytest.fixture
def curation(database: Database, store: FeedbackStore) -> Curation:
    return Curation(database)


@pytest.fixture
def training_set(database: Database, curation: Curation) -> TrainingSet:
    return TrainingSet(EvidenceReader(database), curation)
