"""Group commit: many small writes in one transaction (Gray & Reuter 1993, 9.4.5).

A disk that syncs in 4 ms takes hundreds of votes a second this way: writes that arrive during a
commit wait for the next one, which takes all of them. A write is durable when `run` returns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection

from engine.errors import BurnishError, DatabaseUnavailable, StorageFull
from feedback_store.storage.database import Database

Result = TypeVar("Result")
Write = Callable[[Connection], Any]
# Errors that no single write is to blame for, such as a full disk: every writer hears of them
THE_DATABASES = (StorageFull, DatabaseUnavailable)


class GroupCommit:
    """Runs writes of many threads in shared transactions."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()  # guards the two below
        self._waiting: list[_Write] = []
        self._led = False

    def run(self, work: Callable[[Connection], Result]) -> Result:
        """Do one write; what it raises leaves the others of its transaction alone.

        `work` must refuse, with an error of the tree, before it writes, and may be run again when
        another one spoils the transaction.
        """
        mine = _Write(work)
        with self._lock:
            self._waiting.append(mine)
            leads, self._led = not self._led, True
        if not leads:
            mine.called.wait()
        if not mine.done:
            self._lead()
        if mine.error is not None:
            raise mine.error
        result: Result = mine.result
        return result

    def _lead(self) -> None:
        """Commit all that wait, then call the next leader from those who came meanwhile."""
        with self._lock:
            batch, self._waiting = self._waiting, []
        try:
            self._commit(batch)
        finally:
            for write in batch:
                write.fail_unless_done(BurnishError("not saved: its thread was ended"))
            with self._lock:
                following = self._waiting[:1]
                self._led = bool(following)
            for write in (*batch, *following):
                write.called.set()

    def _commit(self, batch: list[_Write]) -> None:
        try:
            with self._database.write() as connection:
                for write in batch:
                    write.run(connection)
        except THE_DATABASES as error:
            for write in batch:
                write.fail_unless_done(error)
        except Exception as error:  # noqa: BLE001 - raised again by the thread whose write it was
            if len(batch) == 1:
                batch[0].fail_unless_done(error)
            else:  # one of them is to blame: each in a transaction of its own
                for write in batch:
                    self._commit([write])
        else:
            for write in batch:
                write.done = True


class _Write:
    """One write on its way."""

    def __init__(self, work: Write) -> None:
        self._work = work
        self.called = threading.Event()  # it is done, or its thread is to lead
        self.done = False
        self.result: Any = None
        self.error: Exception | None = None

    def fail_unless_done(self, error: Exception) -> None:
        """Nothing of it was saved, and this is why."""
        if not self.done:
            self.error, self.done = error, True

    def run(self, connection: Connection) -> None:
        """Do it. A refusal is its own; any other error undoes the whole transaction."""
        self.error = None
        try:
            self.result = self._work(connection)
        except BurnishError as error:
            self.error = error
