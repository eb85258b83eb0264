"""The end of artefacts in an object store that no job needs any more.

A job is in the queue before anything of it is uploaded, and it leaves the queue after all of it was
deleted. So what no job of the queue needs was left by a process that was killed, or belongs to a
job that was cancelled or erased. The folder at the URL is this queue's alone.
"""

from __future__ import annotations

from deploy.remote_tuning.inputs import inputs_of
from deploy.remote_tuning.objects import ObjectStore
from deploy.remote_tuning.queue import TuningQueue
from engine.home import Home


def sweep_objects(home: Home, queue: TuningQueue, objects: ObjectStore) -> int:
    """Delete the artefacts that no job needs; returns how many. Raises `PeerUnavailable`.

    The names of the home's folders are those at the URL. While a job is running, bundles stay: its
    worker uploads one before the queue knows its digest.
    """
    roots = (home.snapshots, home.ai_labels, home.bundles)
    found = [(root, digest) for root in roots for digest in objects.digests(root)]
    jobs = [job for job in queue.list() if job.state != "cancelled"]  # after what was found
    needed = {each for job in jobs for each in inputs_of(home, job.document)}
    needed |= {(home.bundles, job.bundle) for job in jobs if job.bundle is not None}
    is_running = any(job.state == "running" for job in jobs)
    doomed = [
        (root, digest)
        for root, digest in found
        if (root, digest) not in needed and not (is_running and root == home.bundles)
    ]
    for root, digest in doomed:
        objects.remove(root, digest)
    return len(doomed)
