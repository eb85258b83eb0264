"""A job from a server's home to a worker's and back, and what happens when something dies."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from app.settings import load_settings
from app.tuning_elsewhere import tuning_elsewhere
from deploy.heartbeats import SILENT_SECONDS
from deploy.releases.registry import Registry
from deploy.remote_tuning.following import Cancelled, follow_job
from deploy.remote_tuning.objects import ObjectStore
from deploy.remote_tuning.queue import TuningQueue
from deploy.remote_tuning.worker import TuningWorker
from engine.errors import PeerUnavailable
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.storage import list_digests, verify
from feedback_store.storage.database import Database, database_url
from tests.deploy.test_servers import Clock
from tests.support.databases import migrated_sqlite
from tests.support.jobs import TINY, start
from tests.support.pairs import snapshot_of
from tests.support.played_jobs import PlayedJobs
from tests.support.waiting import wait_until
from tuning.jobs.job_folder import JobFolder, JobSpec
from tuning.jobs.runner import JobRunner
from tuning.recipe import recipe_from_dict


class WorkersJobs(PlayedJobs):
    """Played jobs with the ids of real ones."""

    def start(self, **given: Any) -> str:
        job = spec_of(Home(Path()), given["base_digest"], given["snapshot"]).id
        if self._states.get(job) == "done":
            return job
        played = super().start(**given)
        self._given[job] = self._given.pop(played)
        self._states[job] = self._states.pop(played)
        self.trained[-1] = job
        return job


def spec_of(home: Home, base_digest: str, snapshot: str) -> JobSpec:
    return JobSpec(
        str(home.root), "", "there", base_digest, snapshot, TINY.as_dict(), {"seed": "default"}, 1
    )


class Hosts:
    """A server and workers: one database, one object store, and a home each."""

    def __init__(self, folder: Path, base: BaseModel) -> None:
        self.base = base
        self.clock = Clock()
        self.server = Home(folder / "server")
        self.server.root.mkdir()
        self.database = Database(migrated_sqlite(self.server.root))
        Registry(self.database)
        self.objects = ObjectStore(str(folder / "objects"), sleep=lambda _seconds: None)
        self.object_folder = folder / "objects"
        self.snapshot = snapshot_of(self.server.root, 16)
        self.spec = spec_of(self.server, base.digest, self.snapshot)
        self.job = self.server.jobs / self.spec.id.removeprefix("sha256:")
        self.server.jobs.mkdir()
        JobFolder(self.job).begin(self.spec)
        self.waits: Callable[[], object] = lambda: None

    def worker(self, home: Home) -> tuple[TuningWorker, WorkersJobs]:
        jobs = WorkersJobs(home.bundles, self.base)
        worker = TuningWorker(
            queue=TuningQueue(self.database, self.clock),
            objects=self.objects,
            home=home,
            base=self.base,
            jobs=cast(JobRunner, jobs),
            beat_seconds=0.01,
        )
        return worker, jobs

    def follow(self) -> int:
        """The process of the job, in the server's home."""
        return follow_job(
            JobFolder(self.job),
            TuningQueue(self.database),
            self.objects,
            poll_seconds=0.01,
            sleep=lambda _seconds: self.waits(),
        )

    def result(self) -> dict[str, Any]:
        return dict(json.loads((self.job / "result.json").read_text()))

    def files_in_objects(self) -> list[Path]:
        return [path for path in self.object_folder.rglob("*") if path.is_file()]


@pytest.fixture
def hosts(tmp_path: Path, tiny_base: BaseModel) -> Iterator[Hosts]:
    hosts = Hosts(tmp_path, tiny_base)
    yield hosts
    hosts.database.close()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "worker")


def left_in(home: Home) -> list[Path]:
    """The files of a worker's home that hold people's words, or learnt from them."""
    return [path for folder in home.artefacts for path in folder.glob("*")]


def test_a_job_is_done_elsewhere_and_its_bundle_arrives(hosts: Hosts, home: Home) -> None:
    worker, jobs = hosts.worker(home)
    assert worker.work_once() is None
    hosts.waits = worker.work_once
    assert hosts.follow() == 0
    bundle = hosts.result()["bundle"]
    assert hosts.result() == {"state": "done", "bundle": bundle}
    assert list_digests(hosts.server.bundles) == [bundle]
    assert verify(hosts.server.bundles, bundle) == []
    assert jobs.trained == [hosts.spec.id]
    assert left_in(home) == hosts.files_in_objects() == []
    assert TuningQueue(hosts.database).get(hosts.spec.id) is None


def test_the_progress_of_the_worker_is_the_jobs(hosts: Hosts, home: Home) -> None:
    worker, jobs = hosts.worker(home)
    queue = TuningQueue(hosts.database)
    seen = threading.Event()

    def until_seen() -> None:
        """Train on until the server has read where it is."""
        if jobs.done_events[hosts.spec.id] == 1:
            assert seen.wait(60)

    def look() -> None:
        job = queue.get(hosts.spec.id)
        if job is not None and job.progress is not None:
            seen.set()

    jobs.events_of_each, jobs.while_running = 2, until_seen  # type: ignore[method-assign]
    hosts.waits = look
    following = threading.Thread(target=hosts.follow)
    following.start()
    wait_until(worker.work_once)
    following.join()
    lines = (hosts.job / "progress.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["started"]


def test_a_worker_that_dies_is_replaced(hosts: Hosts, home: Home, tmp_path: Path) -> None:
    class Died(BaseException):
        """The process is gone: nothing is given back."""

    first, jobs = hosts.worker(home)
    second, _ = hosts.worker(Home(tmp_path / "second"))

    def die() -> None:
        raise Died

    jobs.while_running = die  # type: ignore[method-assign]

    def let_one_die() -> None:
        hosts.waits = let_the_other_work
        with pytest.raises(Died):
            first.work_once()
        assert second.work_once() is None, "it has only now seen the first one"
        hosts.clock.now += SILENT_SECONDS

    def let_the_other_work() -> None:
        second.work_once()

    hosts.waits = let_one_die
    assert hosts.follow() == 0
    assert list_digests(hosts.server.bundles) == [hosts.result()["bundle"]]


def test_an_object_store_that_is_away_costs_no_training(
    hosts: Hosts, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, jobs = hosts.worker(home)
    put = hosts.objects._files.put_file

    def away(*_: Any) -> None:
        raise ConnectionRefusedError("away")

    def fail_once() -> None:
        hosts.waits = work
        monkeypatch.setattr(hosts.objects._files, "put_file", away)
        with pytest.raises(PeerUnavailable):
            worker.work_once()
        monkeypatch.setattr(hosts.objects._files, "put_file", put)

    def work() -> None:
        worker.work_once()

    hosts.waits = fail_once
    assert hosts.follow() == 0
    assert jobs.trained == [hosts.spec.id]
    assert list_digests(hosts.server.bundles) == [hosts.result()["bundle"]]


def test_where_the_object_store_is_away_from_the_server_the_job_fails_saying_so(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise ConnectionRefusedError("away")

    monkeypatch.setattr(hosts.objects._files, "exists", away)
    assert hosts.follow() == 1
    assert hosts.result()["error"].startswith("the object store does not answer")


def test_a_bundle_that_cannot_be_fetched_is_fetched_when_the_job_is_resumed(
    hosts: Hosts, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, jobs = hosts.worker(home)

    def away(*_: Any) -> None:
        raise ConnectionRefusedError("away")

    def work() -> None:
        worker.work_once()
        monkeypatch.setattr(hosts.objects._files, "get_file", away)

    hosts.waits = work
    get = hosts.objects._files.get_file
    assert hosts.follow() == 1
    assert hosts.result()["error"].startswith("the object store does not answer")
    assert list_digests(hosts.server.bundles) == []
    monkeypatch.setattr(hosts.objects._files, "get_file", get)
    assert hosts.follow() == 0
    assert list_digests(hosts.server.bundles) == [hosts.result()["bundle"]]
    assert jobs.trained == [hosts.spec.id]
    assert hosts.files_in_objects() == []


def test_a_job_that_cannot_be_done_fails_with_the_workers_reason(hosts: Hosts, home: Home) -> None:
    worker, jobs = hosts.worker(home)
    jobs.failure = "no pair is left"
    hosts.waits = worker.work_once
    assert hosts.follow() == 1
    assert hosts.result() == {"state": "failed", "error": "no pair is left"}
    assert left_in(home) == hosts.files_in_objects() == []


def test_a_cancelled_job_is_taken_from_its_worker(hosts: Hosts, home: Home) -> None:
    worker, jobs = hosts.worker(home)
    queue, cancelled = TuningQueue(hosts.database), threading.Event()
    jobs.events_of_each = 1_000_000

    def cancel_when_it_runs() -> None:
        job = queue.get(hosts.spec.id)
        if job is not None and job.progress is not None:
            cancelled.set()
            raise Cancelled

    hosts.waits = cancel_when_it_runs
    statuses: list[int] = []
    following = threading.Thread(target=lambda: statuses.append(hosts.follow()))
    following.start()
    wait_until(worker.work_once)
    following.join()
    assert cancelled.is_set() and statuses == [1]
    assert not (hosts.job / "result.json").exists()
    assert jobs.get(hosts.spec.id).state == "cancelled"
    assert left_in(home) == hosts.files_in_objects() == []


def test_a_worker_with_another_base_model_leaves_the_job_alone(hosts: Hosts, home: Home) -> None:
    other, _ = hosts.worker(home)
    other._base = replace(hosts.base, digest="sha256:" + "e" * 64)
    queue = TuningQueue(hosts.database)
    document = {"base_digest": hosts.base.digest, "snapshot": hosts.snapshot, "recipe": {}}
    queue.prepare(hosts.spec.id, document)
    queue.submit(hosts.spec.id)
    assert other.work_once() is None


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_real_job_is_trained_in_another_home(
    tmp_path: Path,
    tiny_base: BaseModel,
    kind: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = str(tmp_path / "objects") if kind == "folder" else request.getfixturevalue("s3")
    server, home = Home(tmp_path / "server"), Home(tmp_path / "worker")
    server.root.mkdir(mode=0o700)
    database = Database(database_url(server, None))
    Registry(database)
    monkeypatch.setenv("BURNISH_TUNE_OBJECTS", url)
    command = tuning_elsewhere(load_settings(home=server.root))
    jobs = JobRunner(server, tmp_path / "models", process=command)
    recipe = recipe_from_dict(TINY.as_dict())  # as a file has it
    job = start(jobs, snapshot_of(server.root, 16), recipe, tiny_base)
    worker = TuningWorker(
        queue=TuningQueue(database),
        objects=ObjectStore(url),
        home=home,
        base=tiny_base,
        jobs=JobRunner(home, tmp_path / "models", threads=1, nice=0),
    )
    done = wait_until(worker.work_once)
    assert done.id == job
    events = list(jobs.wait(job))
    bundle = jobs.result(job)
    assert verify(server.bundles, bundle) == []
    assert events, "the worker's progress is the job's"
    assert left_in(home) == []
    assert jobs.find_done(tiny_base.digest, jobs.get(job).snapshot, recipe) == bundle
    database.close()
