"""Many people's writes share few commits, and nobody pays for another one's mistake."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, select
from sqlalchemy.exc import IntegrityError, OperationalError

from engine.errors import BurnishError, DatabaseUnavailable, StorageFull, UnknownId
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.group_commit import GroupCommit
from feedback_store.storage.store import FeedbackStore

WRITERS = 20


class Gate:
    """Holds a leader back inside its transaction until a crowd waits behind it."""

    def __init__(self, database: Database) -> None:
        self.group = GroupCommit(database)
        self._pool = ThreadPoolExecutor(WRITERS + 1)
        self._open = threading.Event()
        self._leads = threading.Event()

    def run(
        self, crowd: list[Callable[[Connection], Any]], leader: Callable[[Connection], Any]
    ) -> tuple[Future[Any], list[Future[Any]]]:
        """The leader's future and the crowd's, whose writes share the transaction after."""

        def lead(connection: Connection) -> Any:
            self._leads.set()
            self._open.wait(30)
            return leader(connection)

        first = self._pool.submit(self.group.run, lead)
        assert self._leads.wait(30)
        others = []
        for place, work in enumerate(crowd):
            others.append(self._pool.submit(self.group.run, work))
            while len(self.group._waiting) <= place:  # in this order
                assert not others[-1].done()
        self._open.set()
        self._pool.shutdown()  # everybody comes back: nobody is left waiting
        return first, others


@pytest.fixture
def gate(store: FeedbackStore, database: Database) -> Gate:
    return Gate(database)


def add(name: str) -> Callable[[Connection], str]:
    """Add a row; a name that is there already is a database error."""

    def work(connection: Connection) -> str:
        connection.execute(insert(t.templates).values(hash=name, definition={}))
        return name

    return work


def refuse(_connection: Connection) -> None:
    raise UnknownId("no such answer")


def stored(database: Database) -> set[str]:
    with database.read() as connection:
        return set(connection.scalars(select(t.templates.c.hash)))


def count_commits(database: Database) -> list[object]:
    """A list that grows by one with each commit from now on."""
    seen: list[object] = []
    event.listen(database._engine, "commit", seen.append)
    return seen


def test_writes_that_wait_for_a_commit_share_the_next_one(gate: Gate, database: Database) -> None:
    names = [str(number) for number in range(WRITERS)]
    seen = count_commits(database)
    leader, crowd = gate.run([add(name) for name in names], add("leader"))
    assert (leader.result(), [future.result() for future in crowd]) == ("leader", names)
    assert stored(database) == {"leader", *names}
    assert len(seen) == 2


def test_without_a_crowd_each_write_is_durable_when_it_returns(
    gate: Gate, database: Database
) -> None:
    for name in ("a", "b"):
        assert gate.group.run(add(name)) == name
        assert name in stored(database)


def test_a_refusal_is_heard_by_its_own_writer_alone(gate: Gate, database: Database) -> None:
    _, crowd = gate.run([add("a"), refuse, add("b")], add("leader"))
    assert isinstance(crowd[1].exception(), UnknownId)
    assert [crowd[0].result(), crowd[2].result()] == ["a", "b"]
    assert stored(database) == {"leader", "a", "b"}


def test_a_database_error_is_heard_by_its_own_writer_alone(gate: Gate, database: Database) -> None:
    _, crowd = gate.run([add("a"), add("leader"), add("b")], add("leader"))
    assert isinstance(crowd[1].exception(), IntegrityError)
    assert [crowd[0].result(), crowd[2].result()] == ["a", "b"]
    assert stored(database) == {"leader", "a", "b"}


def test_a_mistake_in_one_write_is_heard_by_its_own_writer_alone(
    gate: Gate, database: Database
) -> None:
    def mistake(connection: Connection) -> None:
        add("half")(connection)
        raise ZeroDivisionError

    _, crowd = gate.run([add("a"), mistake, add("b")], add("leader"))
    assert isinstance(crowd[1].exception(), ZeroDivisionError)
    assert [crowd[0].result(), crowd[2].result()] == ["a", "b"]
    assert stored(database) == {"leader", "a", "b"}


@pytest.mark.parametrize(
    ("reason", "heard"),
    [
        ("database or disk is full", StorageFull),
        ("the server closed the line", DatabaseUnavailable),
    ],
)
def test_a_full_disk_or_a_lost_database_is_heard_by_everybody(
    gate: Gate, database: Database, reason: str, heard: type[Exception]
) -> None:
    def fail(_connection: Connection) -> None:
        raise OperationalError("INSERT", {}, Exception(reason))

    _, crowd = gate.run([add("a"), fail, add("b")], add("leader"))
    assert [type(future.exception()) for future in crowd] == [heard] * 3
    assert stored(database) == {"leader"}
    assert gate.group.run(add("later")) == "later"


def test_a_leader_whose_thread_is_ended_leaves_nobody_waiting_or_deceived(
    gate: Gate, database: Database
) -> None:
    def end(_connection: Connection) -> None:
        raise KeyboardInterrupt

    # The first of the crowd leads the second transaction; another one's write ends its thread
    first, crowd = gate.run([add("a"), end, add("b")], add("leader"))
    assert first.result() == "leader"
    assert isinstance(crowd[0].exception(), KeyboardInterrupt)
    for other in crowd[1:]:
        with pytest.raises(BurnishError, match="not saved"):
            other.result()
    assert stored(database) == {"leader"}
    assert gate.group.run(add("later")) == "later"


def test_writes_are_made_in_the_order_in_which_they_came(gate: Gate, database: Database) -> None:
    made: list[int] = []

    def note(number: int) -> Callable[[Connection], None]:
        return lambda _connection: made.append(number)

    gate.run([note(number) for number in range(WRITERS)], lambda _connection: None)
    assert made == list(range(WRITERS))


def test_a_crowd_that_never_pauses_loses_nothing(store: FeedbackStore, database: Database) -> None:
    group, each = GroupCommit(database), 25

    def write(writer: int) -> None:
        for number in range(each):
            assert group.run(add(f"{writer}-{number}")) == f"{writer}-{number}"

    seen = count_commits(database)
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    assert len(stored(database)) == WRITERS * each
    assert len(seen) < WRITERS * each
