"""A database of any released version is upgraded with every row, a newer one is left alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, inspect, text

from engine.errors import BurnishError
from feedback_store.conversations import conversation_list as conversations
from feedback_store.privacy.erasure import forget_user
from feedback_store.storage import tables
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import PLAIN, Conversations, sqlite_url
from tests.feedback_store.storage.first_version import (
    EVENT_ROWS,
    ROWS_0001,
    rows_of_0001,
    write_0001,
)
from tests.postgresql import Server

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    server: Server = request.getfixturevalue("postgresql")
    return server.create()


def version(database: Database) -> str:
    with database.read() as connection:
        query = "SELECT version_num FROM alembic_version_feedback"
        return str(connection.exec_driver_sql(query).scalar_one())


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


# Upgrading


def test_a_database_of_the_first_version_keeps_every_row_and_number(database: Database) -> None:
    write_0001(database)
    before = rows_of_0001(database)
    assert before["events"] == EVENT_ROWS
    store = FeedbackStore(database)
    assert rows_of_0001(database) == before
    assert store.counts() == {
        "turns": 2,
        "answers": 3,
        "votes": 1,
        "votes_up": 0,
        "votes_down": 1,
        "corrections": 1,
        "comparisons": 0,
        "flags": 0,
        "regenerations": 0,
        "copies": 0,
    }
    (evidence,) = EvidenceReader(database).all()
    assert [(v.event_id, v.vote, v.reasons, v.comment) for v in evidence.votes] == [(2, -1, (), "")]
    assert [c.text for c in evidence.corrections] == ["A green \N{HERB} thing."]
    assert store.answer(evidence.answers[1].id, "ann").sampling == {"stop": ["x"]}
    _, prompt = store.shown_prompt("a3", "ann")
    assert [message.content for message in prompt] == ["And a root?"]


def test_an_upgraded_database_goes_on_where_it_was(database: Database) -> None:
    write_0001(database)
    store = FeedbackStore(database)
    store.vote("a1", "ann", -1, idempotency_key="k1")  # a replay of long ago
    assert store.event_count() == 5
    store.vote("a1", "ann", 1, reasons=["safe"], comment="After all.")
    comparison = store.compare("a1", "a2", "ann")
    store.choose(comparison.id, "ann", "left")
    with database.read() as connection:
        numbers = connection.exec_driver_sql("SELECT id FROM events ORDER BY id").scalars().all()
    assert numbers[:5] == [1, 2, 7, 9, 12]
    assert 12 < numbers[5] < numbers[6]
    assert store.counts()["votes_up"] == 1


def test_an_empty_database_of_the_first_version_is_upgraded_too(database: Database) -> None:
    write_0001(database)
    with database.write() as connection:
        for name in reversed(ROWS_0001):
            connection.exec_driver_sql(f"DELETE FROM {name}")
    store = FeedbackStore(database)
    store.vote(Conversations(store).ask(), "ann", 1)
    assert store.counts()["votes"] == 1


@pytest.mark.parametrize("origin", ["empty", "0001"])
def test_the_tables_in_the_code_are_those_of_the_migrations(
    database: Database, origin: str
) -> None:
    if origin == "0001":
        write_0001(database)
    FeedbackStore(database)
    with database.read() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": "alembic_version_feedback",
                "compare_type": True,
                # Of one database alone: FTS5's tables, and the GIN index
                "include_name": lambda name, _kind, _parents: (
                    not str(name).startswith(("search_index", "ix_search_documents_terms"))
                ),
            },
        )
        assert compare_metadata(context, tables.feedback_metadata) == []


def test_the_checks_in_the_code_are_those_of_the_migrations(
    database: Database, url: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    FeedbackStore(database)
    if url.startswith("sqlite"):
        (tmp_path / "other").mkdir()
        fresh = Database(sqlite_url(tmp_path / "other"))
    else:
        fresh = Database(request.getfixturevalue("postgresql").create())
    with fresh.write() as connection:
        tables.feedback_metadata.create_all(connection)
    with database.read() as migrated, fresh.read() as expected:
        for name in tables.feedback_metadata.tables:
            found = inspect(migrated).get_check_constraints(name)
            assert found == inspect(expected).get_check_constraints(name)
    fresh.close()


def test_answers_stored_with_their_thought_are_split_and_learnt_from_anew(
    database: Database,
) -> None:
    """They were stored as the model wrote them by every version until 0003."""
    raw = {
        "b1": "<think>\nA plant part.\n</think>\n\nA leaf.",
        "b2": "<think>A pl",
        "b3": "The tag <think> opens it.",
    }
    write_0001(database)
    with database.write() as connection:
        for number, (answer_id, said) in enumerate(raw.items()):
            row = (
                answer_id,
                "t1",
                "done",
                said,
                "",
                1,
                "sha256:b",
                None,
                "{}",
                0,
                5,
                3,
                None,
                9.0 + number,
                9.5,
            )
            values = {f"v{place}": value for place, value in enumerate(row)}
            places = ", ".join(f":{name}" for name in values)
            connection.execute(text(f"INSERT INTO answers VALUES ({places})"), values)
    store = FeedbackStore(database)
    stored = [store.answer(answer_id, "ann") for answer_id in raw]
    assert [(answer.thought, answer.text) for answer in stored] == [
        ("<think>\nA plant part.\n</think>", "A leaf."),
        ("<think>\nA pl\n</think>", ""),
        ("", "The tag <think> opens it."),
    ]
    assert store.history("b1", "ann")[-1].content == "A leaf."
    with database.read() as connection:
        stale = connection.exec_driver_sql("SELECT conversation_id FROM stale").scalars().all()
    assert stale == ["c1"]


def test_conversations_of_before_are_listed_and_found(database: Database) -> None:
    """But not those of API callers and of imports."""
    write_0001(database)
    with database.write() as connection:
        for turn, conversation, user, question in (
            ("t3", "c3", "api", "A leaf of an API caller?"),
            ("t4", "import-4", "ann", "A leaf of an import?"),
            ("t5", "c5", "bob", "\n  A   leaf of Bob's?\nSay."),
            ("t6", "c1", "bob", "A leaf in Ann's conversation?"),
        ):
            values = (turn, conversation, None, user, question, "plain", PLAIN.hash, None, 20.0)
            places = ", ".join(f":v{place}" for place in range(len(values)))
            row = {f"v{place}": value for place, value in enumerate(values)}
            connection.execute(text(f"INSERT INTO turns VALUES ({places})"), row)
    FeedbackStore(database)
    lists = conversations.Conversations(database)
    (ann,) = lists.page("ann")
    title = "What is a leaf? \N{LEAF FLUTTERING IN WIND}"
    # The last thing that happened in it is Bob's turn
    assert (ann.id, ann.title, ann.updated_at) == ("c1", title, 20.0)
    assert [turn.answer.id for turn in lists.view("c1", "ann").turns] == ["a2", "a3"]
    (bob,) = lists.page("bob")
    assert (bob.id, bob.title, lists.view("c5", "bob").turns) == ("c5", "A leaf of Bob's?", ())
    assert (lists.page("api"), lists.search("api", "leaf")) == ([], [])
    # The newest text with a leaf in it is the answer a1 (1.5), before it the question t1 (1.25)
    assert [(e.summary.id, e.excerpt) for e in lists.search("ann", "leaf")] == [("c1", "A leaf.")]
    assert [e.summary.id for e in lists.search("ann", "root")] == ["c1"]
    assert [e.summary.id for e in lists.search("bob", "leaf")] == ["c5"]
    # And the index goes on: a new text is found, and one that is erased is not
    Conversations(FeedbackStore(database)).ask("A stem?", conversation="c1", parent="a3")
    assert [e.summary.id for e in lists.search("ann", "stem")] == ["c1"]
    forget_user(database, "ann")
    assert lists.search("ann", "leaf") == []


# Broken off


class Crash(Exception):
    pass


def crash_at(database: Database, place: int) -> None:
    """Crash just before the n-th statement from now on."""
    left = [place]

    def count(*_: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Crash

    event.listen(database._engine, "before_cursor_execute", count)


@pytest.mark.integration
def test_an_upgrade_broken_off_at_any_statement_leaves_the_old_database(
    database: Database, url: str
) -> None:
    write_0001(database)
    before = rows_of_0001(database)
    for place in range(2, 200):  # the first one begins the transaction
        broken = Database(url)
        crash_at(broken, place)
        try:
            FeedbackStore(broken)
        except Crash:
            assert (rows_of_0001(database), version(database)) == (before, "feedback_0001")
        else:
            break
        finally:
            broken.close()
    assert place > 20
    assert rows_of_0001(database) == before
    assert version(database) == "feedback_0015"


def test_the_first_migrations_broken_off_leave_an_empty_database(
    database: Database, url: str
) -> None:
    broken = Database(url)
    crash_at(broken, 25)
    with pytest.raises(Crash):
        FeedbackStore(broken)
    broken.close()
    with database.read() as connection:
        assert inspect(connection).get_table_names() == []
    assert FeedbackStore(database).event_count() == 0


def _upgrade_until_killed(url: str, statement: str) -> None:
    database = Database(url)

    def look(_connection: object, _cursor: object, about_to_run: str, *_: object) -> None:
        if about_to_run.strip().startswith(statement):
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(database._engine, "before_cursor_execute", look)
    FeedbackStore(database)


@pytest.mark.integration
@pytest.mark.parametrize("statement", ["INSERT INTO events ", "UPDATE alembic_version_feedback"])
def test_kill_9_in_the_middle_of_an_upgrade_leaves_the_old_database(
    database: Database, url: str, statement: str
) -> None:
    write_0001(database)
    before = rows_of_0001(database)
    process = PROCESSES.Process(target=_upgrade_until_killed, args=(url, statement))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (rows_of_0001(database), version(database)) == (before, "feedback_0001")
    FeedbackStore(database)
    assert (rows_of_0001(database), version(database)) == (before, "feedback_0015")


# Newer, again, together


def test_a_database_from_a_newer_version_is_refused_and_left_alone(
    database: Database, url: str
) -> None:
    store = FeedbackStore(database)
    answer_id = Conversations(store).ask()
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version_feedback SET version_num = 'next_9999'")
    later = Database(url)
    with pytest.raises(BurnishError, match=r"newer Burnish.*next_9999.*upgrade Burnish"):
        FeedbackStore(later)
    later.close()
    assert store.answer(answer_id, "ann").text == "A leaf."
    assert version(database) == "next_9999"


def test_opening_a_migrated_database_again_keeps_its_rows(url: str) -> None:
    first = Database(url)
    answer_id = Conversations(FeedbackStore(first)).ask("Q", "A")
    first.close()
    second = Database(url)
    assert [m.content for m in FeedbackStore(second).history(answer_id, "ann")] == ["Q", "A"]
    second.close()


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
