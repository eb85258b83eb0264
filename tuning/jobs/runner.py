"""Tuning jobs: a process of their own, one at a time per home, found again after a crash.

A job's id is the digest of all it depends on, so starting the same job again resumes it. The
lease is an flock held by the job's process: a dead owner cannot hold it. Knows no trainer; the
process is `tuning.jobs.worker`, or `tuning.jobs.launcher` where a job has several.

A job's state is what the worker wrote last (done, failed) or, where it wrote nothing, what is
found: its lease is held (running), it was told to stop (cancelled), or it died (interrupted). All
but a finished job go on from their last checkpoint when they are resumed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.errors import BurnishError, Conflict, InvalidInput, UnknownId
from engine.file_lock import file_lock
from engine.home import Home
from engine.storage import folder_of, list_digests, short_id
from tuning.distributed import processes_of, worker_arguments
from tuning.jobs.events import JobEvent
from tuning.jobs.job_folder import JobFolder, JobSpec
from tuning.recipe import Recipe

JobState = Literal["running", "done", "failed", "cancelled", "interrupted"]
WAITING = "waiting for a free processor"
PID_PATIENCE_SECONDS = 5.0  # a worker writes its pid as its first act
# OpenMP's threads sleep while they wait for each other. By default they spin, which keeps the
# others from their processors: beside one busy process a job was 1.8 times as slow
SLEEPING_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}


def default_threads() -> int:
    """The processors that this process may use; a job yields to the chat by its priority alone."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Job:
    """A job as found on disk."""

    id: str
    state: JobState
    snapshot: str
    bundle: str | None
    error: str | None
    started_at: float
    stopping: bool = False  # it was told to stop, and still runs
    base_digest: str = ""

    def described(self, *, waiting: bool = False) -> str:
        """The state in words; `waiting`: its process gets hardly any processor time."""
        if self.stopping:
            return "stopping"
        return WAITING if waiting and self.state == "running" else self.state


class JobRunner:
    """The jobs of one home.

    With a configuration of `accelerate` (see `tuning.distributed`), a job has as many processes as
    it says. `nice` is the niceness of jobs, 0..19; None leaves them the processor time that nobody
    else uses. `process` is the command of a job's process, which gets its folder, in place of the
    trainer's.
    """

    def __init__(
        self,
        home: Home,
        models: Path,
        threads: int | None = None,
        accelerate_config: Path | None = None,
        nice: int | None = None,
        process: Sequence[str] | None = None,
    ) -> None:
        self._home = home
        self._models = models
        self._threads = threads or default_threads()
        self._accelerate_config = accelerate_config
        self._nice = nice
        self._process = process
        self._root = home.jobs
        self._root.mkdir(parents=True, exist_ok=True)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self,
        *,
        base_name: str,
        base_digest: str,
        snapshot: str,
        recipe: Recipe,
        recipe_origins: dict[str, str],
    ) -> str:
        """Start or resume a job; returns its id. Raises `Conflict` while another runs.

        A job that is already done is not run again: the same inputs make the same adapter. Raises
        `InvalidInput` for a configuration of `accelerate` that cannot be used.
        """
        return self._launch(self._spec(base_name, base_digest, snapshot, recipe, recipe_origins))

    def find_done(self, base_digest: str, snapshot: str, recipe: Recipe) -> str | None:
        """The bundle of a finished job with these inputs, which `start` would not run again."""
        result = self._folder(self._spec("", base_digest, snapshot, recipe, {}).id).result()
        return result.get("bundle") if result.get("state") == "done" else None

    def _spec(
        self,
        base_name: str,
        base_digest: str,
        snapshot: str,
        recipe: Recipe,
        recipe_origins: dict[str, str],
    ) -> JobSpec:
        config = self._accelerate_config
        return JobSpec(
            str(self._home.root),
            str(self._models),
            base_name,
            base_digest,
            snapshot,
            recipe.as_dict(),
            recipe_origins,
            self._threads,
            1 if config is None else processes_of(config),
            self._nice,
        )

    def resume(self, job_id: str) -> str:
        """Start a job again with what it was first given; returns its id, as `start` does.

        It has as many processes as it had. Raises `UnknownId`, `Conflict` while any job runs, and
        `InvalidInput` where it had several and no configuration is set by now.
        """
        spec = self._begun(job_id).spec(
            home=str(self._home.root),
            models=str(self._models),
            threads=self._threads,
            nice=self._nice,
        )
        return self._launch(spec)

    def _launch(self, spec: JobSpec) -> str:
        folder = self._folder(spec.id)
        if folder.result().get("state") == "done":
            return spec.id
        command = self._command(spec, folder.path)
        # Somebody who looks whether a job runs takes the lease, shared, for a moment
        with self._lease(patience_seconds=1) as descriptor:
            os.ftruncate(descriptor, 0)  # the last holder's id
            folder.begin(spec)
            os.pwrite(descriptor, spec.id.encode(), 0)
            with folder.output_file.open("ab") as log:
                self._processes[spec.id] = subprocess.Popen(  # noqa: S603 - our own module
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[descriptor],  # the lease lives as long as the worker
                    start_new_session=True,
                    env={**SLEEPING_THREADS, **os.environ},
                )
        return spec.id

    def _command(self, spec: JobSpec, folder: Path) -> list[str]:
        if self._process is not None:
            return [*self._process, str(folder)]
        if spec.processes == 1:
            return [sys.executable, *worker_arguments(folder)]
        if self._accelerate_config is None:
            raise InvalidInput(
                f"this job runs in {spec.processes} processes: set tune_accelerate_config"
            )
        arguments = worker_arguments(folder, self._accelerate_config, spec.processes)
        return [sys.executable, *arguments]

    def wait(
        self, job_id: str, poll_seconds: float = 0.2, look: Callable[[Job], object] | None = None
    ) -> Iterator[JobEvent]:
        """Progress events as they come, until the job ends; `look` gets the job at each poll."""
        progress = self._folder(job_id).progress_tail()
        while True:
            job = self.get(job_id)
            yield from progress.read()
            if job.state != "running":
                return
            if look is not None:
                look(job)
            time.sleep(poll_seconds)

    def result(self, job_id: str) -> str:
        """The bundle of a finished job; raises `BurnishError` with the reason it has none."""
        job = self.get(job_id)
        if job.bundle is None:
            reason = job.error or f"job {short_id(job_id)} can be resumed"
            raise BurnishError(f"tuning {job.state}: {reason}")
        return job.bundle

    def cancel(self, job_id: str) -> None:
        """Kill a running job, whoever started it; it can be resumed from its last checkpoint.

        Returns before it is dead: its state is "running" until then. Raises `UnknownId`, and
        `Conflict` where it does not run.
        """
        if self.get(job_id).state != "running":
            raise Conflict("this job is not running")
        pid = self._pid(job_id)
        # First the mark, then the kill: a worker that ends by itself meanwhile has the last word
        self._folder(job_id).mark_cancelled()
        try:
            os.killpg(pid, signal.SIGTERM)
        except ProcessLookupError:
            raise Conflict("this job has just ended") from None

    def stop(self, job_id: str) -> None:
        """Kill a job, unless it has ended by itself, and wait until it is dead."""
        with suppress(Conflict):
            self.cancel(job_id)
        for _ in self.wait(job_id):
            pass

    def list(self) -> Sequence[Job]:
        """All jobs, the newest first."""
        jobs = [self.get(job_id) for job_id in list_digests(self._root)]
        return sorted(jobs, key=lambda job: job.started_at, reverse=True)

    def get(self, job_id: str) -> Job:
        """One job."""
        folder = self._begun(job_id)
        document = folder.manifest()
        holder = self._leaseholder()  # before the result: a job ends by writing it, then exits
        result = folder.result()
        state = result.get("state") or self._unfinished(job_id, holder)
        return Job(
            job_id,
            state,
            document["snapshot"],
            result.get("bundle"),
            result.get("error"),
            document["started_at"],
            stopping=state == "running" and folder.is_cancelled,
            base_digest=document.get("base_digest", ""),
        )

    def recipe(self, job_id: str) -> dict[str, Any]:
        """A job's recipe in plain values."""
        return dict(self._begun(job_id).manifest().get("recipe", {}))

    def events(self, job_id: str) -> Sequence[JobEvent]:
        """A job's events so far."""
        return self._folder(job_id).events()

    def output(self, job_id: str) -> str:
        """The end of a job's output; see `JobFolder.output`."""
        return self._folder(job_id).output()

    def folder(self, job_id: str) -> Path:
        """The folder in which a job keeps its files."""
        return folder_of(self._root, job_id)

    def _folder(self, job_id: str) -> JobFolder:
        return JobFolder(self.folder(job_id))

    def _begun(self, job_id: str) -> JobFolder:
        folder = self._folder(job_id)
        if not folder.exists:
            raise UnknownId(f"no tuning job {job_id[:80]!r}")
        return folder

    def _unfinished(self, job_id: str, holder: str | None) -> JobState:
        if holder == job_id:
            return "running"
        return "cancelled" if self._folder(job_id).is_cancelled else "interrupted"

    def pid(self, job_id: str) -> int | None:
        """The process of a job; None where it has not begun yet."""
        return self._folder(job_id).pid()

    def _pid(self, job_id: str) -> int:
        deadline = time.monotonic() + PID_PATIENCE_SECONDS
        while (pid := self.pid(job_id)) is None:
            if time.monotonic() > deadline or self.get(job_id).state != "running":
                raise Conflict("this job has no process that could be stopped")
            time.sleep(0.01)
        return pid

    def _lease(
        self, *, patience_seconds: float = 0.0, shared: bool = False
    ) -> AbstractContextManager[int]:
        return file_lock(
            self._root / "lease",
            lambda: "a tuning job is already running; one runs at a time",
            patience_seconds=patience_seconds,
            shared=shared,
        )

    def _leaseholder(self) -> str | None:
        """The id of the running job."""
        for process in self._processes.values():
            process.poll()  # reap, so that a dead child's lease is gone
        try:
            with self._lease(shared=True):
                return None
        except Conflict:
            return (self._root / "lease").read_text()
