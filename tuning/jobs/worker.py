"""The process of one tuning job: `python -m tuning.jobs.worker JOB_FOLDER`.

Writes its pid as its first act, `progress.jsonl` and TensorBoard's files while it runs, and
`result.json` as its last act. SIGTERM ends it at once: what it had saved stays.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from engine.errors import Conflict
from engine.home import Home
from engine.storage import write_atomically
from tuning.jobs.events import JobEvent, JobStarted
from tuning.jobs.job_folder import JobFolder, JobSpec

if TYPE_CHECKING:
    from tuning.training_run import TrainingRun  # torch is read once the process has yielded

LOWEST_PRIORITY = 19
RESERVE_BYTES = 1 << 16  # held back, so that a job on a full disk can still say why it failed
FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_BELOW_BYTES = 1 << 20
DISK_FULL = "the disk is full; free some space and resume: the job goes on from its last checkpoint"


def main(folder: Path) -> int:
    """Run the job in a folder; returns the exit status."""
    JobFolder(folder).write_pid()
    return work(folder)


def work(folder: Path) -> int:
    """Run the job in this process, the only one or the first; returns the exit status."""
    job = JobFolder(folder)
    spec = job.spec()
    priority = yield_to_chat(spec.nice)
    reserve = folder / "reserve"
    try:
        write_atomically(reserve, bytes(RESERVE_BYTES))
        bundle = _run(spec, job, priority)
    except Exception as error:  # noqa: BLE001 - the process's edge: the reason must reach the operator
        reason = _reason(error, folder)
        _remove_half_saved(folder)
        reserve.unlink(missing_ok=True)
        job.fail(reason)
        return 1
    reserve.unlink(missing_ok=True)
    job.finish(bundle)
    return 0


def yield_to_chat(nice: int | None = None) -> str:
    """Lower this process's priority, processor and disk; returns the priority's name.

    `nice` is the niceness to take, 0..19; without one the process is left what nobody else uses.

    Called before torch starts its threads, which inherit it. SCHED_IDLE is below every niceness.
    A job is a session of its own, and where Linux shares processors by session ("autogroup"),
    niceness counts only within one; so the session is given the lowest share as well. Source:
    sched(7), "SCHED_IDLE" and "The autogroup feature". What a container forbids is left out.
    """
    niceness = LOWEST_PRIORITY if nice is None else nice
    os.nice(niceness)
    if sys.platform != "linux":
        return f"nice {niceness}"
    if nice is None:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    if os.getsid(0) == os.getpid():  # else the session is somebody's terminal, which it would slow
        with suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(niceness))
    with suppress(OSError, psutil.AccessDenied):
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
    idle = os.sched_getscheduler(0) == os.SCHED_IDLE
    return "idle" if idle else f"nice {niceness}"


def training_run(spec: JobSpec, folder: Path) -> TrainingRun:
    """The run that a job asks for; raises `Conflict` where its base model is another by now."""
    from engine.models.catalogue import resolve
    from engine.start import kernel_cache
    from feedback_store.snapshots.snapshot import open_snapshot
    from tuning.recipe import recipe_from_dict
    from tuning.training_run import TrainingRun

    home = Home(Path(spec.home))
    base = resolve(spec.base_name, Path(spec.models))
    if base.digest != spec.base_digest:
        raise Conflict("the base model has changed since the job was made")
    return TrainingRun(
        base=base,
        snapshot=open_snapshot(home.snapshots, spec.snapshot),
        recipe=recipe_from_dict(spec.recipe),
        recipe_origins=spec.recipe_origins,
        folder=folder,
        home=home,
        kernel_cache=kernel_cache(Path(spec.models)),
    )


def _run(spec: JobSpec, job: JobFolder, priority: str) -> str:
    import torch

    from tuning.jobs.progress import TensorBoardLog
    from tuning.train import run

    torch.set_num_threads(spec.threads_each)
    log = job.progress_log()
    log(
        JobStarted(
            pid=os.getpid(), processes=spec.processes, threads=spec.threads_each, priority=priority
        )
    )
    with TensorBoardLog(job.path / "tensorboard") as board:

        def report(event: JobEvent) -> None:
            log(event)
            board(event)

        return run(training_run(spec, job.path), report)


def _reason(error: Exception, folder: Path) -> str:
    """The error as the operator reads it.

    safetensors and torch tell of a full disk by errors of their own, torch without a word of it; a
    disk on which nothing is left says it for them.
    """
    told = any(
        getattr(each, "errno", None) in FULL or any(f"os error {n}" in str(each) for n in FULL)
        for each in _chain(error)
    )
    if told or shutil.disk_usage(folder).free < FULL_BELOW_BYTES:
        return DISK_FULL
    return f"{type(error).__name__}: {error}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _remove_half_saved(folder: Path) -> None:
    """Delete unfinished checkpoints, in which the trainer writes `trainer_state.json` last."""
    checkpoints = folder.glob("*/checkpoint-*")
    half = [path for path in checkpoints if not (path / "trainer_state.json").is_file()]
    for path in [*half, *folder.glob("*/adapter.tmp")]:
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    status = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # at once: taking torch down takes seconds, and holds the lease
