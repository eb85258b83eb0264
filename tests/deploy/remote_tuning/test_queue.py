"""Jobs of the queue: each is done by one worker at a time, and by another one if that dies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from deploy.heartbeats import SILENT_SECONDS
from deploy.releases.registry import Registry
from deploy.remote_tuning.queue import QueuedJob, TuningQueue
from feedback_store.storage.database import Database
from tests.deploy.test_servers import Clock
from tests.postgresql import Server

DOCUMENT = {"base_digest": "sha256:base", "snapshot": "sha256:s", "recipe": {"seed": 1}}
JOB, OTHER = ("sha256:" + letter * 64 for letter in "ab")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def store(request: pytest.FixtureRequest) -> Iterator[Database]:
    if request.param == "sqlite":
        database = Database(request.getfixturevalue("url_of_sqlite"))
    else:
        server: Server = request.getfixturevalue("postgresql")
        database = Database(server.create_migrated())
    Registry(database)
    yield database
    database.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(store: Database) -> TuningQueue:
    return TuningQueue(store)


@pytest.fixture
def one(store: Database, clock: Clock) -> TuningQueue:
    return TuningQueue(store, clock)


@pytest.fixture
def two(store: Database, clock: Clock) -> TuningQueue:
    return TuningQueue(store, clock)


def enter(queue: TuningQueue, job: str, document: Mapping[str, Any]) -> None:
    queue.prepare(job, document)
    queue.submit(job)


def claimed(queue: TuningQueue) -> QueuedJob:
    job = queue.claim("sha256:base")
    assert job is not None
    return job


def test_a_job_is_done_by_one_worker_and_its_end_is_seen(
    server: TuningQueue, one: TuningQueue, two: TuningQueue
) -> None:
    assert server.get(JOB) is None and one.claim("sha256:base") is None
    enter(server, JOB, DOCUMENT)
    enter(server, JOB, DOCUMENT)
    job = claimed(one)
    assert (job.id, job.document, job.state) == (JOB, DOCUMENT, "running")
    assert two.claim("sha256:base") is None
    assert one.beat(job, {"event": "step", "step": 3})
    found = server.get(JOB)
    assert found is not None and found.progress == {"event": "step", "step": 3}
    assert one.finish(job, bundle=OTHER)
    found = server.get(JOB)
    assert found is not None and (found.state, found.bundle) == ("done", OTHER)
    assert two.claim("sha256:base") is None
    server.remove(JOB)
    assert server.get(JOB) is None


def test_a_job_waits_once_its_artefacts_are_uploaded(server: TuningQueue, one: TuningQueue) -> None:
    server.prepare(JOB, DOCUMENT)
    assert one.claim("sha256:base") is None
    server.submit(JOB)
    job = claimed(one)
    server.prepare(JOB, DOCUMENT)
    assert one.beat(job, None), "it goes on"
    server.withdraw(JOB)
    assert not one.beat(job, None)
    server.withdraw(OTHER)
    assert [job.state for job in server.list()] == ["cancelled"]


def test_the_oldest_job_is_first_and_one_for_another_base_model_stays(
    server: TuningQueue, one: TuningQueue
) -> None:
    enter(server, JOB, {**DOCUMENT, "base_digest": "sha256:larger"})
    enter(server, OTHER, DOCUMENT)
    assert claimed(one).id == OTHER
    assert one.claim("sha256:base") is None


def test_a_silent_workers_job_is_taken_over_and_it_cannot_end_it_any_more(
    server: TuningQueue, one: TuningQueue, two: TuningQueue, clock: Clock
) -> None:
    enter(server, JOB, DOCUMENT)
    first = claimed(one)
    assert two.claim("sha256:base") is None
    clock.now += SILENT_SECONDS - 1
    assert one.beat(first, None)
    assert two.claim("sha256:base") is None
    clock.now += SILENT_SECONDS - 1
    assert two.claim("sha256:base") is None, "it has been seen alive since"
    clock.now += 1
    second = claimed(two)
    assert second.id == JOB
    assert not one.beat(first, None)
    assert not one.finish(first, bundle=OTHER)
    assert not one.give_back(first)
    assert two.finish(second, error="the disk is full")
    found = server.get(JOB)
    assert found is not None and (found.state, found.error) == ("failed", "the disk is full")


def test_a_cancelled_job_stops_with_the_next_heartbeat_and_may_be_queued_again(
    server: TuningQueue, one: TuningQueue
) -> None:
    enter(server, JOB, DOCUMENT)
    job = claimed(one)
    server.cancel(JOB)
    assert not one.beat(job, None)
    assert not one.finish(job, bundle=OTHER)
    assert one.claim("sha256:base") is None
    enter(server, JOB, DOCUMENT)
    assert claimed(one).id == JOB


def test_a_job_that_is_given_back_waits_for_the_next_worker(
    server: TuningQueue, one: TuningQueue, two: TuningQueue
) -> None:
    enter(server, JOB, DOCUMENT)
    job = claimed(one)
    assert one.give_back(job)
    assert claimed(two).id == JOB
    assert not one.beat(job, None)
