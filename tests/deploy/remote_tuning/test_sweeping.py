"""What no job needs any more disappears from the object store, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.remote_tuning.objects import ObjectStore
from deploy.remote_tuning.queue import TuningQueue
from deploy.remote_tuning.sweeping import sweep_objects
from engine.home import Home
from tests.deploy.remote_tuning.test_worker import Hosts, hosts
from tests.helpers import make_bundle

__all__ = ["hosts"]  # a fixture
DOCUMENT_FIELDS = ("base_digest", "snapshot", "recipe", "recipe_origins")


@pytest.fixture
def queue(hosts: Hosts) -> TuningQueue:
    """The queue, in which a process was killed right after the job's upload."""
    queue = TuningQueue(hosts.database, hosts.clock)
    queue.prepare(hosts.spec.id, {name: getattr(hosts.spec, name) for name in DOCUMENT_FIELDS})
    hosts.objects.put(hosts.server.snapshots, hosts.snapshot)
    return queue


def test_a_job_that_can_be_resumed_keeps_its_snapshot_and_an_erased_one_does_not(
    hosts: Hosts, queue: TuningQueue
) -> None:
    before = hosts.files_in_objects()
    assert sweep_objects(hosts.server, queue, hosts.objects) == 0
    assert hosts.files_in_objects() == before != []
    queue.withdraw(hosts.spec.id)
    assert sweep_objects(hosts.server, queue, hosts.objects) == 1
    assert hosts.files_in_objects() == []


def test_a_worker_without_a_job_sweeps(hosts: Hosts, queue: TuningQueue, tmp_path: Path) -> None:
    queue.withdraw(hosts.spec.id)
    worker, _ = hosts.worker(Home(tmp_path / "worker"))
    assert worker.work_once() is None
    assert hosts.files_in_objects() == []


def test_a_bundle_stays_while_a_job_runs_and_once_its_job_names_it(
    hosts: Hosts, queue: TuningQueue
) -> None:
    bundle = make_bundle(hosts.server.bundles, hosts.base)
    queue.submit(hosts.spec.id)
    job = queue.claim(hosts.base.digest)
    assert job is not None
    hosts.objects.put(hosts.server.bundles, bundle)  # its worker will say so next
    assert sweep_objects(hosts.server, queue, hosts.objects) == 0
    queue.finish(job, bundle=bundle)
    assert sweep_objects(hosts.server, queue, hosts.objects) == 0
    queue.remove(hosts.spec.id)
    assert sweep_objects(hosts.server, queue, hosts.objects) == 2


def test_half_an_upload_goes_and_what_is_no_artefact_stays(url: str, hosts: Hosts) -> None:
    objects = ObjectStore(url, sleep=lambda _seconds: None)
    queue = TuningQueue(hosts.database)
    assert sweep_objects(hosts.server, queue, objects) == 0, "nothing was uploaded yet"
    objects.put(hosts.server.snapshots, hosts.snapshot)
    place = objects._address_of(hosts.server.snapshots, hosts.snapshot)
    objects._files.rm_file(f"{place}/manifest.json")
    other = f"{place.rpartition('/')[0]}/notes.txt"
    objects._files.pipe_file(other, b"mine")
    assert sweep_objects(hosts.server, queue, objects) == 1
    assert objects.digests(hosts.server.snapshots) == []
    assert objects._files.cat_file(other) == b"mine"
