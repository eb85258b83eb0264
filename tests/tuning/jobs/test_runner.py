"""Tuning jobs as processes: one at a time, resumed after a kill, honest about their end.

Most of these tests play the worker with a shell script; the last part starts the real one, four
times in all, since each start imports torch and trl.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine.adapters.bundle import open_bundle
from engine.errors import BurnishError, Conflict, InvalidInput, UnknownId
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.start import kernel_cache
from tests.support.job_events import of_type, steps_of
from tests.support.jobs import DPO_STEPS, TINY, WORKER
from tests.support.pairs import snapshot_of
from tests.support.waiting import wait_until
from tuning.jobs import runner as jobs_module
from tuning.jobs.events import (
    BundlePublished,
    DataRead,
    JobEvent,
    JobStarted,
    ReferencesRead,
    StepDone,
)
from tuning.jobs.progress import read_progress
from tuning.jobs.runner import Job, JobRunner, JobSpec, default_threads
from tuning.kernels import choose_kernels
from tuning.recipe import Recipe

SNAPSHOTS = [f"sha256:{number:064}" for number in range(3)]


def start(
    runner: JobRunner, snapshot: str, recipe: Recipe = TINY, base: BaseModel | None = None
) -> str:
    return runner.start(
        base_name=base.name if base else "base",
        base_digest=base.digest if base else "sha256:base",
        snapshot=snapshot,
        recipe=recipe,
        recipe_origins={"seed": "default"},
    )


def when_free(starts: Callable[[], str]) -> str:
    """Start once the last worker's process has gone, which is a moment after its job has ended."""

    def attempt() -> str | None:
        try:
            return starts()
        except Conflict:
            return None

    return str(wait_until(attempt))


def pid_of(runner: JobRunner, job: str) -> int:
    path = runner.folder(job) / "pid"
    return int(wait_until(lambda: path.is_file() and path.read_text().strip()))


def end(runner: JobRunner, job: str) -> None:
    """Cancel a played job, wait for its end, and forget the pid it noted."""
    pid_of(runner, job)
    runner.cancel(job)
    wait_until(lambda: runner.get(job).state != "running")
    (runner.folder(job) / "pid").unlink()


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


def test_a_job_takes_the_processors_that_it_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 2, 5})
    assert default_threads() == 3


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


# The real worker


@dataclass(frozen=True)
class Ran:
    """One real job, from start to end."""

    home: Path
    runner: JobRunner
    job: Job
    events: list[JobEvent]

    @property
    def losses(self) -> dict[tuple[str, int], float]:
        return {(e.stage, e.step): e.loss for e in self.steps}

    @property
    def steps(self) -> list[StepDone]:
        return of_type(self.events, StepDone)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        folder = Home(self.home).bundles / str(self.job.bundle).removeprefix("sha256:")
        return load_file(folder / "adapter_model.safetensors")


@pytest.fixture(scope="module", autouse=True)
def environment_of_workers() -> Iterator[None]:
    """They find the project, and take one thread each: two would only wait for each other."""
    with pytest.MonkeyPatch.context() as patched:
        root = str(Path(__file__).parents[3])
        patched.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))
        patched.setenv("OMP_NUM_THREADS", "1")
        yield


def home_with_pairs(home: Path, base: BaseModel) -> tuple[JobRunner, str]:
    return JobRunner(Home(home), base.folder.parent / "cache"), snapshot_of(home, 16)


def ran(home: Path, runner: JobRunner, job: str) -> Ran:
    """Wait for a job's end."""
    events = list(runner.wait(job, poll_seconds=0.05))
    log = (runner.folder(job) / "log.txt").read_text()
    assert runner.get(job).state == "done", f"{runner.get(job).error}\n{log[-2000:]}"
    return Ran(home, runner, runner.get(job), events)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, tiny_base: BaseModel) -> Ran:
    home = tmp_path_factory.mktemp("uninterrupted")
    runner, snapshot = home_with_pairs(home, tiny_base)
    return ran(home, runner, start(runner, snapshot, base=tiny_base))


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory: pytest.TempPathFactory, tiny_base: BaseModel) -> Ran:
    """The same job, killed once the first checkpoint of its second stage is there."""
    home = tmp_path_factory.mktemp("killed")
    runner, snapshot = home_with_pairs(home, tiny_base)
    job = start(runner, snapshot, base=tiny_base)
    killed = False
    before = []
    for event in runner.wait(job, poll_seconds=0.01):
        before.append(event)
        if not killed and steps_of([event]) == [("dpo", 11)]:
            os.kill(pid_of(runner, job), signal.SIGKILL)
            killed = True
    assert runner.get(job).state == "interrupted", "it ended before it was killed"
    assert start(runner, snapshot, base=tiny_base) == job
    whole = ran(home, runner, job)
    return Ran(home, runner, whole.job, whole.events[len(before) :])


def test_a_job_makes_a_verified_bundle_and_says_what_it_was_made_of(
    uninterrupted: Ran, tiny_base: BaseModel
) -> None:
    job = uninterrupted.job
    bundle = open_bundle(
        Home(uninterrupted.home).bundles, uninterrupted.runner.result(job.id), tiny_base
    )
    manifest = bundle.manifest
    assert (manifest["snapshot"], manifest["base_digest"]) == (job.snapshot, tiny_base.digest)
    # the same as in this process, with the same compiler and the same cache
    kernels = choose_kernels(kernel_cache(tiny_base.folder.parent / "cache"))
    assert manifest["kernels"] == kernels.reason
    assert manifest["recipe"] == TINY.as_dict()
    assert (manifest["pairs"], manifest["pairs_too_long"]) == (13, 0)
    assert {"trl", "peft", "torch", "transformers"} <= manifest["versions"].keys()
    assert '"seed":"default"' in (bundle.folder / "recipe.json").read_text()


def test_a_job_reports_each_step_of_each_stage_and_learns(uninterrupted: Ran) -> None:
    told = (JobStarted, DataRead, ReferencesRead, StepDone, BundlePublished)
    kinds = [type(event) for event in uninterrupted.events if isinstance(event, told)]
    steps = [*[StepDone] * 4, ReferencesRead, *[StepDone] * DPO_STEPS]
    assert kinds == [JobStarted, DataRead, *steps, BundlePublished]
    assert steps_of(uninterrupted.events) == [
        *(("sft", n) for n in range(1, 5)),
        *(("dpo", n) for n in range(1, DPO_STEPS + 1)),
    ]
    first, last = uninterrupted.steps[4], uninterrupted.steps[-1]
    assert first.reward_margin == 0.0
    assert last.reward_margin is not None and last.reward_margin > 0.1
    assert last.loss < first.loss


def test_a_job_that_is_done_is_not_run_again(uninterrupted: Ran, tiny_base: BaseModel) -> None:
    job = uninterrupted.job
    again = JobRunner(Home(uninterrupted.home), tiny_base.folder.parent / "cache")
    assert when_free(lambda: start(again, job.snapshot, base=tiny_base)) == job.id
    assert again.get(job.id) == job  # with the time of its first start
    assert list(again.wait(job.id)) == uninterrupted.events


def test_a_killed_job_goes_on_from_its_checkpoint(killed_and_resumed: Ran) -> None:
    """Not with the stage that was finished, and not with the first step of the one it was in."""
    assert {event.stage for event in killed_and_resumed.steps} == {"dpo"}
    numbers = [event.step for event in killed_and_resumed.steps]
    assert numbers[0] in (11, 21)
    assert numbers == list(range(numbers[0], DPO_STEPS + 1))


def test_a_killed_job_ends_where_it_would_have_ended(
    uninterrupted: Ran, killed_and_resumed: Ran
) -> None:
    for step, loss in killed_and_resumed.losses.items():
        assert loss == pytest.approx(uninterrupted.losses[step], rel=0.01), step
    found, expected = killed_and_resumed.weights, uninterrupted.weights
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=1e-3), name


@pytest.mark.slow
def test_a_job_killed_in_each_stage_and_in_a_save_still_ends_where_it_would_have_ended(
    uninterrupted: Ran, tmp_path: Path, tiny_base: BaseModel
) -> None:
    runner, snapshot = home_with_pairs(tmp_path, tiny_base)
    job = start(runner, snapshot, base=tiny_base)
    progress, stage = runner.folder(job) / "progress.jsonl", runner.folder(job) / "dpo"

    def at(name: str, step: int) -> bool:
        return (name, step) in steps_of(read_progress(progress))

    def saving() -> bool:
        return any(not (p / "trainer_state.json").exists() for p in stage.glob("checkpoint-*"))

    for moment in (lambda: at("sft", 2), lambda: at("dpo", 3), saving, lambda: at("dpo", 15)):
        wait_until(moment)
        os.kill(pid_of(runner, job), signal.SIGKILL)
        wait_until(lambda: runner.get(job).state == "interrupted")
        (runner.folder(job) / "pid").unlink()
        assert start(runner, snapshot, base=tiny_base) == job
    last = ("dpo", DPO_STEPS)
    found = ran(tmp_path, runner, job)
    assert found.losses[last] == pytest.approx(uninterrupted.losses[last], rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_job_killed_at_three_random_steps_ends_where_it_would_have_ended(
    uninterrupted: Ran, tmp_path: Path, tiny_base: BaseModel, seed: int
) -> None:
    runner, snapshot = home_with_pairs(tmp_path, tiny_base)
    job = start(runner, snapshot, base=tiny_base)
    progress = runner.folder(job) / "progress.jsonl"

    def reached(steps: int) -> bool:
        return len(set(steps_of(read_progress(progress)))) >= steps

    for steps in sorted(random.Random(seed).sample(range(4 + DPO_STEPS - 2), 3)):
        pid = pid_of(runner, job)
        wait_until(lambda steps=steps: reached(steps))
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: runner.get(job).state == "interrupted")
        assert runner.resume(job) == job
    last = ("dpo", DPO_STEPS)
    found = ran(tmp_path, runner, job)
    assert found.losses[last] == pytest.approx(uninterrupted.losses[last], rel=0.01)


def test_a_job_that_fails_says_why_and_frees_its_place(
    tmp_path: Path, tiny_base: BaseModel
) -> None:
    runner, snapshot = home_with_pairs(tmp_path, tiny_base)
    file = Home(tmp_path).snapshots / snapshot.removeprefix("sha256:") / "train" / "pairs.jsonl"
    file.write_bytes(file.read_bytes().replace(b"never", b"maybe"))
    job = start(runner, snapshot, base=tiny_base)
    list(runner.wait(job))
    failed = runner.get(job)
    assert (failed.state, failed.bundle) == ("failed", None)
    assert failed.error is not None
    assert "train/pairs.jsonl differs from its sha256" in failed.error
    with pytest.raises(BurnishError, match=r"tuning failed: .*train/pairs.jsonl differs"):
        runner.result(job)
    assert not (Home(tmp_path).bundles).exists()
