"""Real jobs, from start to end; each start imports torch and trl.

That a killed run goes on from its checkpoint is tested in one process in `test_worker.py`; here the
process is killed, which is slow.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.adapters.bundle import open_bundle
from engine.errors import BurnishError
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.start import kernel_cache
from tests.support.job_events import of_type, steps_of
from tests.support.jobs import DPO_STEPS, TINY, pid_of, start, when_free
from tests.support.pairs import snapshot_of
from tests.support.waiting import wait_until
from tuning.jobs.events import (
    BundlePublished,
    DataRead,
    JobEvent,
    JobStarted,
    ReferencesRead,
    StepDone,
)
from tuning.jobs.runner import Job, JobRunner
from tuning.kernels import choose_kernels

pytestmark = pytest.mark.integration


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
    """They find the project."""
    with pytest.MonkeyPatch.context() as patched:
        root = str(Path(__file__).parents[3])
        patched.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))
        yield


def home_with_pairs(home: Path, base: BaseModel) -> tuple[JobRunner, str]:
    return JobRunner(Home(home), base.folder.parent / "cache", nice=0), snapshot_of(home, 16)


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
    again = JobRunner(Home(uninterrupted.home), tiny_base.folder.parent / "cache", nice=0)
    assert when_free(lambda: start(again, job.snapshot, base=tiny_base)) == job.id
    assert again.get(job.id) == job  # with the time of its first start
    assert list(again.wait(job.id)) == uninterrupted.events


@pytest.mark.slow
def test_a_killed_job_goes_on_from_its_checkpoint(killed_and_resumed: Ran) -> None:
    """Not with the stage that was finished, and not with the first step of the one it was in."""
    assert {event.stage for event in killed_and_resumed.steps} == {"dpo"}
    numbers = [event.step for event in killed_and_resumed.steps]
    assert numbers[0] in (11, 21)
    assert numbers == list(range(numbers[0], DPO_STEPS + 1))


@pytest.mark.slow
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
    stage = runner.folder(job) / "dpo"

    def at(name: str, step: int) -> bool:
        return (name, step) in steps_of(runner.events(job))

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

    def reached(steps: int) -> bool:
        return len(set(steps_of(runner.events(job)))) >= steps

    for steps in sorted(random.Random(seed).sample(range(4 + DPO_STEPS - 2), 3)):
        pid = pid_of(runner, job)
        wait_until(partial(reached, steps))
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
