"""The process of a job that a worker on another host runs, in place of the trainer.

It uploads what the job reads, queues the job, writes the worker's progress into the job's folder
as the trainer would, and ends with the bundle in this home. So jobs are listed, followed, cancelled
and resumed alike, wherever they run. What it uploaded is deleted at its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from deploy.remote_tuning.inputs import inputs_of
from deploy.remote_tuning.objects import ObjectStore
from deploy.remote_tuning.queue import PASSING, QueuedJob, TuningQueue
from engine.errors import BurnishError, PeerUnavailable
from engine.home import Home
from tuning.jobs.events import decode
from tuning.jobs.job_folder import JobFolder
from tuning.jobs.progress import ProgressLog

QUEUE_POLL_SECONDS = 1.0
# What a worker needs to know; paths of this host are of no use to it
TOLD = ("base_digest", "snapshot", "recipe", "recipe_origins")


class Cancelled(BaseException):
    """Raised by the signal's handler where somebody cancelled the job."""


def follow_job(
    job: JobFolder,
    queue: TuningQueue,
    objects: ObjectStore,
    *,
    poll_seconds: float = QUEUE_POLL_SECONDS,
    sleep: Callable[[float], object] = time.sleep,
) -> int:
    """Have a job done by a worker; returns the exit status of its process.

    Records the job's end in its folder, as the trainer does. `Cancelled`, raised from a signal's
    handler, takes the job back from its worker.
    """
    spec = job.spec()
    home = Home(Path(spec.home))
    document = {name: getattr(spec, name) for name in TOLD}
    uploaded = list(inputs_of(home, document))
    try:
        queue.prepare(spec.id, document)
        for root, digest in uploaded:
            objects.put(root, digest)
        queue.submit(spec.id)
        bundle = _bundle_of(_until_ended(queue, spec.id, job.progress_log(), poll_seconds, sleep))
        uploaded.append((home.bundles, bundle))
        objects.fetch(home.bundles, bundle)
    except Cancelled:
        queue.cancel(spec.id)
        _delete(objects, uploaded)
        return 1
    except PASSING as error:
        # Queue and object store keep what they have: the job goes on from it when it is resumed
        job.fail(str(error))
        return 1
    except BurnishError as error:
        _delete(objects, uploaded)
        job.fail(str(error))
        queue.remove(spec.id)
        return 1
    _delete(objects, uploaded)
    job.finish(bundle)
    queue.remove(spec.id)
    return 0


def _delete(objects: ObjectStore, uploaded: Iterable[tuple[Path, str]]) -> None:
    """Delete artefacts from the object store; one that is away keeps them."""
    with suppress(PeerUnavailable):
        for root, digest in uploaded:
            objects.remove(root, digest)


def _bundle_of(ended: QueuedJob) -> str:
    """The bundle of a job that has ended; raises `BurnishError` with the reason it has none."""
    if ended.bundle is None:
        raise BurnishError(ended.error or f"the job was {ended.state} in the queue")
    return ended.bundle


def _until_ended(
    queue: TuningQueue,
    job_id: str,
    report: ProgressLog,
    poll_seconds: float,
    sleep: Callable[[float], object],
) -> QueuedJob:
    """Report each new event of the job until it has ended."""
    last: Mapping[str, Any] | None = None
    while True:
        job = queue.get(job_id)
        if job is None:
            raise BurnishError("the job is no longer in the queue; resume it")
        if job.progress is not None and job.progress != last:
            last = job.progress
            if (event := decode(last)) is not None:
                report(event)
        if job.state not in ("waiting", "running"):
            return job
        sleep(poll_seconds)
