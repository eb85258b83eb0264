"""A worker: takes jobs of one queue, runs each in a home of its own, and uploads their bundles.

What people said is in a worker's home only while their job runs: its copies of snapshot, bundle and
job are deleted when the job has ended or was taken from it.
"""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import suppress
from typing import Any

from deploy.heartbeats import BEAT_SECONDS, heartbeats
from deploy.remote_tuning.inputs import inputs_of
from deploy.remote_tuning.objects import ObjectStore
from deploy.remote_tuning.queue import PASSING, QueuedJob, TuningQueue
from deploy.remote_tuning.sweeping import sweep_objects
from engine.errors import BurnishError, Conflict, DatabaseUnavailable, StorageFull
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.storage import folder_of
from tuning.jobs.events import encode
from tuning.jobs.runner import JobRunner
from tuning.recipe import recipe_from_dict

SWEEP_SECONDS = 600.0


class TuningWorker:
    """One worker. Its home is its own: no server uses it."""

    def __init__(
        self,
        *,
        queue: TuningQueue,
        objects: ObjectStore,
        home: Home,
        base: BaseModel,
        jobs: JobRunner,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self._queue = queue
        self._objects = objects
        self._home = home
        self._base = base
        self._jobs = jobs
        self._beat_seconds = beat_seconds
        self._swept_at: float | None = None

    def work_once(self) -> QueuedJob | None:
        """Take a job and run it to its end; returns it, or None where there is none.

        Raises `PASSING` errors, and `Conflict` where this home runs another job; the job then waits
        for the next try.
        """
        job = self._queue.claim(self._base.digest)
        if job is None:
            self._sweep_at_times()
            return None
        holding = _Holding(self._queue, job)
        with heartbeats(holding.beat, "burnish-tune-worker", self._beat_seconds):
            try:
                bundle = self._train(job, holding)
                if bundle is not None:
                    self._objects.put(self._home.bundles, bundle)
                    if not self._queue.finish(job, bundle=bundle):
                        self._objects.remove(self._home.bundles, bundle)
            except (*PASSING, Conflict):
                with suppress(DatabaseUnavailable, StorageFull):  # silence does it, too
                    self._queue.give_back(job)
                raise  # the home keeps what was trained: the next try goes on from there
            except BurnishError as error:
                self._queue.finish(job, error=str(error))
        self._clean(job)
        return job

    def _sweep_at_times(self) -> None:
        """Delete what no job needs, at the start and then every ten minutes without a job."""
        now = time.monotonic()
        if self._swept_at is None or now - self._swept_at > SWEEP_SECONDS:
            self._swept_at = now
            with suppress(*PASSING):  # the next one does it
                sweep_objects(self._home, self._queue, self._objects)

    def _train(self, job: QueuedJob, holding: _Holding) -> str | None:
        """Run the job; returns its bundle, or None where it was taken from this worker."""
        for root, digest in inputs_of(self._home, job.document):
            self._objects.fetch(root, digest)
        if not self._is_running(job.id):  # a worker that died may have left it running
            self._start(job)
        for event in self._jobs.wait(job.id):
            holding.newest = encode(event)
            if holding.lost.is_set():
                break
        if holding.lost.is_set():
            self._jobs.stop(job.id)
            return None
        return self._jobs.result(job.id)

    def _start(self, job: QueuedJob) -> None:
        started = self._jobs.start(
            base_name=self._base.name,
            base_digest=self._base.digest,
            snapshot=str(job.document["snapshot"]),
            recipe=recipe_from_dict(dict(job.document["recipe"])),
            recipe_origins=dict(job.document["recipe_origins"]),
        )
        if started != job.id:
            raise BurnishError("this worker reads the job's recipe as another one; update it")

    def _is_running(self, job_id: str) -> bool:
        return any(job.id == job_id and job.state == "running" for job in self._jobs.list())

    def _clean(self, job: QueuedJob) -> None:
        """Delete this home's copies of a job and of all that it read and made."""
        made = [(self._home.jobs, job.id)]
        with suppress(BurnishError):  # it made none
            made.append((self._home.bundles, self._jobs.result(job.id)))
        for root, digest in (*made, *inputs_of(self._home, job.document)):
            shutil.rmtree(folder_of(root, digest), ignore_errors=True)
        shutil.rmtree(self._home.references, ignore_errors=True)


class _Holding:
    """A job that this worker holds: `newest` is its newest event, `lost` that it was taken away."""

    def __init__(self, queue: TuningQueue, job: QueuedJob) -> None:
        self._queue = queue
        self._job = job
        self.newest: dict[str, Any] | None = None
        self.lost = threading.Event()

    def beat(self) -> bool:
        """Send a heartbeat with the newest event; returns whether the job is still held."""
        if not self._queue.beat(self._job, self.newest):
            self.lost.set()
        return not self.lost.is_set()
