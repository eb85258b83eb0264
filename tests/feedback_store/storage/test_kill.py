"""`kill -9` while votes are written: what was acknowledged is durable (docs/faults.md, row 1).

Each round is a real process with many writing threads. It appends the key of a vote to a file
when `vote` has returned, which is when a server would answer "saved", and is killed at a random
moment. The rounds share one database, so each one also opens what the last one left behind.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from feedback_store.storage import tables
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from feedback_store.storage.turns import new_id
from tests.feedback_store.conftest import Conversations

# A server process from which the rounds are forked, so that each need not import everything anew
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])


@pytest.mark.integration
@pytest.mark.parametrize(
    ("rounds", "writers"), [(5, 20), pytest.param(30, 20, marks=pytest.mark.slow)]
)
def test_no_acknowledged_vote_is_lost_by_kill_9(
    tmp_path: Path, url: str, rounds: int, writers: int
) -> None:
    database = Database(url)
    answer_id = Conversations(FeedbackStore(database)).ask()
    database.close()
    acknowledged = tmp_path / "acknowledged"
    moments = random.Random(0)
    for _ in range(rounds):
        before = len(_keys(acknowledged))
        _vote_until_killed(url, answer_id, writers, acknowledged, moments.uniform(0, 0.3))
        assert len(_keys(acknowledged)) > before, "nothing was acknowledged before the kill"
        stored = _stored_keys(url)
        assert _keys(acknowledged) <= stored
    # A writer has one vote under way at a time: nothing else can be stored unacknowledged
    assert len(stored - _keys(acknowledged)) <= rounds * writers


def _vote_until_killed(
    url: str, answer_id: str, writers: int, acknowledged: Path, seconds: float
) -> None:
    """Start a voting process and kill it some time after its first acknowledgement."""
    size = acknowledged.stat().st_size if acknowledged.exists() else 0
    process = PROCESSES.Process(target=_vote_forever, args=(url, answer_id, writers, acknowledged))
    process.start()
    deadline = time.monotonic() + 60
    while not (acknowledged.exists() and acknowledged.stat().st_size > size):
        assert process.is_alive() and time.monotonic() < deadline, "the voter does not vote"
        time.sleep(0.005)
    time.sleep(seconds)
    process.kill()
    process.join()
    assert process.exitcode == -9, "the process ended before it was killed"


def _vote_forever(url: str, answer_id: str, writers: int, acknowledged: Path) -> None:
    """The killed process: each thread votes again and again, and notes what was acknowledged."""
    store = FeedbackStore(Database(url))
    notes = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write() -> None:
        while True:
            key = new_id()
            store.vote(answer_id, "ann", random.choice((-1, 0, 1)), idempotency_key=key)
            os.write(notes, f"{key}\n".encode())  # one write call: whole lines, whoever is killed

    threads = [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _keys(acknowledged: Path) -> set[str]:
    return set(acknowledged.read_text().split()) if acknowledged.exists() else set()


def _stored_keys(url: str) -> set[str]:
    """The keys in the database; of SQLite, whose file the dead process wrote, it is checked."""
    database = Database(url)
    with database.read() as connection:
        if connection.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
        keys = set(connection.scalars(select(tables.events.c.idempotency_key)))
    database.close()
    return keys
