"""Tuning jobs as processes: one at a time, found by everyone, resumed after a kill.

A shell script plays the worker; `test_real_jobs.py` starts the real one.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from engine.errors import BurnishError, Conflict, InvalidInput, UnknownId
from engine.home import Home
from tests.support.jobs import TINY, WORKER, end, pid_of, start, when_free
from tests.support.waiting import wait_until
from tuning.jobs import runner as jobs_module
from tuning.jobs.job_folder import JobSpec
from tuning.jobs.runner import JobRunner, default_threads
from tuning.recipe import Recipe

SNAPSHOTS = [f"sha256:{number:064}" for number in range(3)]


# A job's identity


def test_a_jobs_id_is_that_of_all_it_depends_on_and_of_nothing_else() -> None:
    def job_id(**changed: Any) -> str:
        given: dict[str, Any] = {
            "home": "/a",
            "models": "/m",
            "base_name": "base",
            "base_digest": "b",
            "snapshot": "s",
            "recipe": TINY.as_dict(),
            "recipe_origins": {},
            "threads": 1,
        }
        return JobSpec(**(given | changed)).id

    elsewhere = {"home": "/b", "models": "/n", "base_name": "other", "threads": 4}
    assert job_id(**elsewhere, recipe_origins={"x": "y"}) == job_id()
    others = {
        job_id(base_digest="c"),
        job_id(snapshot="t"),
        job_id(recipe=Recipe(seed=1).as_dict()),
        job_id(processes=2),  # the batches are twice as large
    }
    assert len(others | {job_id()}) == 5


# One at a time, with a played worker


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let jobs start the script above instead of Python."""
    script = tmp_path / "worker"
    script.write_text(WORKER)
    script.chmod(0o755)
    monkeypatch.setattr(jobs_module, "sys", SimpleNamespace(executable=str(script)))


@pytest.fixture
def runner(tmp_path: Path) -> JobRunner:
    return JobRunner(Home(tmp_path / "home"), tmp_path / "models")


def test_a_new_home_has_no_jobs(runner: JobRunner) -> None:
    assert runner.list() == []


@pytest.mark.usefixtures("played")
def test_a_running_job_is_seen_by_everyone_and_refuses_a_second_one(
    runner: JobRunner, tmp_path: Path
) -> None:
    job = start(runner, SNAPSHOTS[0])
    another = JobRunner(Home(tmp_path / "home"), tmp_path / "models")
    for sees in (runner, another):
        assert [(j.id, j.state, j.snapshot) for j in sees.list()] == [
            (job, "running", SNAPSHOTS[0])
        ]
    for snapshot in SNAPSHOTS[:2]:  # the same job once more, and a different one
        with pytest.raises(Conflict, match="one runs at a time"):
            start(another, snapshot)
    end(runner, job)


@pytest.mark.usefixtures("played")
def test_a_cancelled_job_frees_its_place_and_can_be_started_again(runner: JobRunner) -> None:
    job = start(runner, SNAPSHOTS[0])
    end(runner, job)
    assert runner.get(job).state == "cancelled"
    with pytest.raises(Conflict, match="not running"):
        runner.cancel(job)
    with pytest.raises(BurnishError, match=r"tuning cancelled: job .* can be resumed"):
        runner.result(job)
    other = start(runner, SNAPSHOTS[1])
    end(runner, other)
    assert start(runner, SNAPSHOTS[0]) == job
    assert runner.get(job).state == "running"
    assert [j.id for j in runner.list()] == [job, other]  # the newest first
    end(runner, job)


@pytest.mark.usefixtures("played")
def test_a_job_is_cancelled_and_resumed_by_who_did_not_start_it(
    runner: JobRunner, tmp_path: Path
) -> None:
    job = start(runner, SNAPSHOTS[0])
    another = JobRunner(Home(tmp_path / "home"), tmp_path / "elsewhere", threads=3)
    pid_of(runner, job)
    another.cancel(job)
    wait_until(lambda: another.get(job).state == "cancelled", seconds=5)
    assert when_free(lambda: another.resume(job)) == job
    assert runner.get(job).state == "running"
    manifest = json.loads((another.folder(job) / "manifest.json").read_text())
    assert (manifest["models"], manifest["threads"]) == (str(tmp_path / "elsewhere"), 3)
    assert (manifest["snapshot"], manifest["recipe"]) == (SNAPSHOTS[0], TINY.as_dict())
    with pytest.raises(Conflict, match="one runs at a time"):
        runner.resume(job)
    end(another, job)
    with pytest.raises(UnknownId):
        runner.resume(SNAPSHOTS[2])


@pytest.mark.usefixtures("played")
def test_a_job_that_was_cancelled_once_and_then_died_is_called_interrupted(
    runner: JobRunner,
) -> None:
    job = start(runner, SNAPSHOTS[0])
    end(runner, job)
    when_free(lambda: runner.resume(job))
    os.kill(pid_of(runner, job), signal.SIGKILL)
    wait_until(lambda: runner.get(job).state != "running", seconds=5)
    assert runner.get(job).state == "interrupted"


@pytest.mark.usefixtures("played")
def test_a_job_that_ended_by_itself_while_it_was_cancelled_keeps_its_own_end(
    runner: JobRunner,
) -> None:
    job = start(runner, SNAPSHOTS[0])
    (runner.folder(job) / "cancelled").touch()
    (runner.folder(job) / "result.json").write_text('{"state": "done", "bundle": "sha256:b"}')
    os.kill(pid_of(runner, job), signal.SIGKILL)
    assert (runner.get(job).state, runner.result(job)) == ("done", "sha256:b")


@pytest.mark.usefixtures("played")
def test_a_job_of_several_processes_keeps_their_number_when_it_is_resumed(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("distributed_type: MULTI_GPU\nnum_processes: 3\n")
    several = JobRunner(Home(tmp_path / "home"), tmp_path / "models", accelerate_config=file)
    job = start(several, SNAPSHOTS[0])
    manifest = json.loads((several.folder(job) / "manifest.json").read_text())
    assert manifest["processes"] == 3
    end(several, job)

    one = JobRunner(Home(tmp_path / "home"), tmp_path / "models")
    with pytest.raises(InvalidInput, match="runs in 3 processes: set tune_accelerate_config"):
        one.resume(job)
    two = JobRunner(Home(tmp_path / "home"), tmp_path / "models", accelerate_config=Path("ddp"))
    assert when_free(lambda: two.resume(job)) == job
    assert json.loads((two.folder(job) / "manifest.json").read_text())["processes"] == 3
    end(two, job)
    assert when_free(lambda: start(one, SNAPSHOTS[0])) != job
    end(one, one.list()[0].id)


@pytest.mark.usefixtures("played")
def test_a_job_of_one_process_stays_one_where_several_are_set_by_now(tmp_path: Path) -> None:
    one = JobRunner(Home(tmp_path / "home"), tmp_path / "models")
    job = start(one, SNAPSHOTS[0])
    end(one, job)
    several = JobRunner(Home(tmp_path / "home"), tmp_path / "models", accelerate_config=Path("ddp"))
    assert when_free(lambda: several.resume(job)) == job
    assert json.loads((one.folder(job) / "manifest.json").read_text())["processes"] == 1
    end(several, job)


def test_a_configuration_that_cannot_be_used_starts_no_job(tmp_path: Path) -> None:
    runner = JobRunner(
        Home(tmp_path / "home"), tmp_path, accelerate_config=tmp_path / "nowhere.yaml"
    )
    with pytest.raises(InvalidInput, match="it is a file, or one of ddp, fsdp, deepspeed"):
        start(runner, SNAPSHOTS[0])
    assert runner.list() == []


@pytest.mark.parametrize(("threads", "processes", "each"), [(8, 2, 4), (3, 2, 1), (1, 4, 1)])
def test_processes_share_the_threads_of_their_job(threads: int, processes: int, each: int) -> None:
    spec = JobSpec("/a", "/m", "base", "b", "s", {}, {}, threads, processes)
    assert spec.threads_each == each


def test_a_job_takes_the_processors_that_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 2, 5})
    assert default_threads() == 3


@pytest.mark.usefixtures("played")
@pytest.mark.parametrize(("own", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_a_jobs_threads_sleep_while_they_wait_unless_the_operator_says_otherwise(
    runner: JobRunner, monkeypatch: pytest.MonkeyPatch, own: str | None, policy: str
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if own is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", own)
    job = start(runner, SNAPSHOTS[0])
    # Linux shows a process without an environment while it starts its program
    environment = wait_until(psutil.Process(pid_of(runner, job)).environ)
    assert environment["OMP_WAIT_POLICY"] == policy
    end(runner, job)


@pytest.mark.usefixtures("played")
def test_a_worker_killed_by_the_system_leaves_no_lock_behind(
    runner: JobRunner, tmp_path: Path
) -> None:
    job = start(runner, SNAPSHOTS[0])
    os.kill(pid_of(runner, job), signal.SIGKILL)
    another = JobRunner(Home(tmp_path / "home"), tmp_path / "models")
    wait_until(lambda: another.get(job).state == "interrupted", seconds=5)
    end(another, start(another, SNAPSHOTS[1]))


@pytest.mark.usefixtures("played")
def test_of_two_starters_at_once_exactly_one_wins(tmp_path: Path) -> None:
    """Twenty races, each in a home of its own."""

    def race(number: int) -> list[str | None]:
        together = threading.Barrier(2)

        def starter(snapshot: str) -> str | None:
            runner = JobRunner(Home(tmp_path / str(number)), tmp_path)
            together.wait()
            try:
                return start(runner, snapshot)
            except Conflict:
                return None

        with ThreadPoolExecutor(2) as both:
            return list(both.map(starter, SNAPSHOTS[:2]))

    with ThreadPoolExecutor(10) as races:
        results = list(races.map(race, range(20)))
    assert [result.count(None) for result in results] == [1] * 20
    for number, result in enumerate(results):
        (winner,) = filter(None, result)
        runner = JobRunner(Home(tmp_path / str(number)), tmp_path)
        assert [(job.id, job.state) for job in runner.list()] == [(winner, "running")]
        end(runner, winner)
