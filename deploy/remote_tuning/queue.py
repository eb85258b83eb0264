"""The queue of tuning jobs that wait for a worker, in the database.

A worker holds a job by heartbeats (`deploy.heartbeats`), and ends it under its token alone.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import JSON, Column, Float, Integer, String, Table, Text, delete, select
from sqlalchemy import update as update_rows

from deploy.heartbeats import SilenceWatch
from deploy.releases.registry import release_tables
from engine.errors import DatabaseUnavailable, PeerUnavailable, StorageFull
from feedback_store.storage.database import Database, insert_once

# Faults of the surroundings, after which a job is tried again
PASSING = (PeerUnavailable, DatabaseUnavailable, StorageFull)
QueuedState = Literal["preparing", "waiting", "running", "done", "failed", "cancelled"]
tuning_queue = Table(
    "tuning_queue",
    release_tables,
    Column("id", String(71), primary_key=True),  # the job's
    Column("document", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("holder", String(32)),  # the worker that runs it, or ran it last
    Column("token", Integer, nullable=False),
    Column("beat", Integer, nullable=False),
    Column("progress", JSON(none_as_null=True)),  # the job's newest event
    Column("bundle", String(71)),
    Column("error", Text),
    Column("created_at", Float, nullable=False),
)


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job of the queue. `document` is what a worker needs to know of it."""

    id: str
    document: Mapping[str, Any]
    state: QueuedState
    token: int
    progress: Mapping[str, Any] | None
    bundle: str | None
    error: str | None


_JOB_COLUMNS = [tuning_queue.c[name] for name in QueuedJob.__dataclass_fields__]


class TuningQueue:
    """The queue of one database, as one process sees it. `Registry` migrates its table."""

    def __init__(self, database: Database, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._watch = SilenceWatch(monotonic)
        self._worker = uuid.uuid4().hex

    # For those who want a job done

    def prepare(self, job_id: str, document: Mapping[str, Any]) -> None:
        """Enter a job whose artefacts are about to be uploaded, so that no sweep takes them.

        One that failed or was cancelled is prepared again; another one stays as it is.
        """
        row = {
            "id": job_id,
            "document": dict(document),
            "state": "preparing",
            "token": 0,
            "beat": 0,
            "created_at": time.time(),
        }
        with self._database.write() as connection:
            insert_once(connection, tuning_queue, row)
            ended = tuning_queue.c.state.in_(("failed", "cancelled"))
            connection.execute(
                update_rows(tuning_queue)
                .where(tuning_queue.c.id == job_id, ended)
                .values(state="preparing", holder=None, progress=None, error=None)
            )

    def submit(self, job_id: str) -> None:
        """Let a prepared job wait for a worker; one that waits or runs already stays as it is."""
        with self._database.write() as connection:
            prepared = tuning_queue.c.id == job_id, tuning_queue.c.state == "preparing"
            connection.execute(update_rows(tuning_queue).where(*prepared).values(state="waiting"))

    def list(self) -> Sequence[QueuedJob]:
        """Return all jobs of the queue."""
        with self._database.read() as connection:
            rows = connection.execute(select(*_JOB_COLUMNS)).mappings()
            return [QueuedJob(**row) for row in rows]

    def get(self, job_id: str) -> QueuedJob | None:
        """A job; None where it is not in the queue."""
        with self._database.read() as connection:
            row = connection.execute(select(*_JOB_COLUMNS).where(tuning_queue.c.id == job_id))
            found = row.mappings().one_or_none()
        return None if found is None else QueuedJob(**found)

    def cancel(self, job_id: str) -> None:
        """Take a job back; its worker stops with its next heartbeat."""
        with self._database.write() as connection:
            unfinished = tuning_queue.c.state.in_(("preparing", "waiting", "running"))
            connection.execute(
                update_rows(tuning_queue)
                .where(tuning_queue.c.id == job_id, unfinished)
                .values(state="cancelled")
            )

    def withdraw(self, job_id: str) -> None:
        """Take back a job that nobody wants any more, ended or not; it need not be there."""
        with self._database.write() as connection:
            this = update_rows(tuning_queue).where(tuning_queue.c.id == job_id)
            connection.execute(this.values(state="cancelled"))

    def remove(self, job_id: str) -> None:
        """Forget a job whose bundle has arrived."""
        with self._database.write() as connection:
            connection.execute(delete(tuning_queue).where(tuning_queue.c.id == job_id))

    # Workers

    def claim(self, base_digest: str) -> QueuedJob | None:
        """Take the oldest job for a base model that waits, or whose worker is silent."""
        with self._database.write() as connection:
            open_jobs = tuning_queue.c.state.in_(("waiting", "running"))
            query = select(tuning_queue).where(open_jobs).order_by(tuning_queue.c.created_at)
            rows = [dict(row) for row in connection.execute(query).mappings()]
            silent = self._watch.silent({row["id"]: _state_of(row) for row in rows})
            for row in rows:
                is_free = row["state"] == "waiting" or row["id"] in silent
                if not is_free or row["document"].get("base_digest") != base_digest:
                    continue
                held = {"state": "running", "holder": self._worker, "token": row["token"] + 1}
                this = tuning_queue.c.id == row["id"]
                connection.execute(update_rows(tuning_queue).where(this).values(beat=0, **held))
                names = QueuedJob.__dataclass_fields__
                return QueuedJob(**{name: {**row, **held}[name] for name in names})
        return None

    def beat(self, job: QueuedJob, progress: Mapping[str, Any] | None) -> bool:
        """Tell that the job's worker is alive, and the job's newest event.

        Returns whether the worker still holds the job: it may be cancelled or taken over.
        """
        return self._update(job, beat=tuning_queue.c.beat + 1, progress=progress)

    def finish(
        self, job: QueuedJob, *, bundle: str | None = None, error: str | None = None
    ) -> bool:
        """Record a job's end, unless the worker no longer holds it; returns whether it did."""
        state = "failed" if bundle is None else "done"
        return self._update(job, state=state, bundle=bundle, error=error)

    def give_back(self, job: QueuedJob) -> bool:
        """Let the job wait again, for this worker or another one."""
        return self._update(job, state="waiting", holder=None)

    def _update(self, job: QueuedJob, **values: Any) -> bool:
        row = tuning_queue.c
        mine = (row.id == job.id) & (row.state == "running") & (row.token == job.token)
        statement = update_rows(tuning_queue).where(mine).values(**values)
        with self._database.write() as connection:
            return connection.execute(statement).rowcount == 1


def _state_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["state"], row["holder"], row["token"], row["beat"]
