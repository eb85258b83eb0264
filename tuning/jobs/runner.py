"""Tuning jobs: a process of their own, one at a time per home, found again after a crash.

A job's id is the digest of all it depends on, so starting the same job again resumes it. The
lease is an flock held by the job's process: a dead owner cannot hold it. Knows no trainer; the
process is `tuning.jobs.worker`, or `tuning.jobs.launcher` where a job has several.

A job's state is what the worker wrote last (done, failed) or, where it wrote nothing, what is
found: its lease is held (running), it was told to stop (cancelled), or it died (interrupted). All
but a finished job go on from their last checkpoint when they are resumed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from engine.errors import BurnishError, Conflict, InvalidInput, UnknownId
from engine.file_lock import file_lock
from engine.home import Home
from engine.storage import digest_json, folder_of, list_digests, short_id, write_atomically
from tuning.distributed import processes_of, worker_arguments
from tuning.jobs.events import JobEvent
from tuning.jobs.progress import ProgressTail
from tuning.recipe import Recipe

JobState = Literal["running", "done", "failed", "cancelled", "interrupted"]
WAITING = "waiting for a free processor"
CANCELLED = "cancelled"  # a file in the job's folder: somebody asked it to stop
PID_PATIENCE_SECONDS = 5.0  # a worker writes its pid as its first act
# OpenMP's threads sleep while they wait for each other. By default they spin, which keeps the
# others from their processors: beside one busy process a job was 1.8 times as slow
SLEEPING_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}


def default_threads() -> int:
    """The processors that this process may use; a job yields to the chat by its priority alone."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class JobSpec:
    """All a job depends on; plain values, since it crosses a process boundary."""

    home: str
    models: str  # the model cache
    base_name: str
    base_digest: str
    snapshot: str
    recipe: dict[str, Any]
    recipe_origins: dict[str, str]
    threads: int  # of all processes together
    processes: int = 1
    nice: int | None = None  # niceness; None is idle priority

    @property
    def id(self) -> str:
        """Digest of the inputs that decide the result; more processes make larger batches."""
        decisive = [self.base_digest, self.snapshot, self.recipe]
        return digest_json(decisive if self.processes == 1 else [*decisive, self.processes])

    @property
    def threads_each(self) -> int:
        """The threads of one process."""
        return max(1, self.threads // self.processes)


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
        result = self._result(self._spec("", base_digest, snapshot, recipe, {}).id)
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
        known = self._manifest(job_id)
        del known["started_at"]
        here = {
            "home": str(self._home.root),
            "models": str(self._models),
            "threads": self._threads,
            "nice": self._nice,
        }
        return self._launch(JobSpec(**{**known, **here}))

    def _launch(self, spec: JobSpec) -> str:
        folder = folder_of(self._root, spec.id)
        if self._result(spec.id).get("state") == "done":
            return spec.id
        command = self._command(spec, folder)
        # Somebody who looks whether a job runs takes the lease, shared, for a moment
        with self._lease(patience_seconds=1) as descriptor:
            os.ftruncate(descriptor, 0)  # the last holder's id
            folder.mkdir(exist_ok=True)
            for leftover in ("result.json", "pid", CANCELLED):
                (folder / leftover).unlink(missing_ok=True)
            document = {**asdict(spec), "started_at": time.time()}
            write_atomically(folder / "manifest.json", json.dumps(document).encode())
            os.pwrite(descriptor, spec.id.encode(), 0)
            with (folder / "log.txt").open("ab") as log:
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
        progress = ProgressTail(self.folder(job_id) / "progress.jsonl")
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
        (self.folder(job_id) / CANCELLED).touch()
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
        document = self._manifest(job_id)
        holder = self._leaseholder()  # before the result: a job ends by writing it, then exits
        result = self._result(job_id)
        state = result.get("state") or self._unfinished(job_id, holder)
        return Job(
            job_id,
            state,
            document["snapshot"],
            result.get("bundle"),
            result.get("error"),
            document["started_at"],
            stopping=state == "running" and (self.folder(job_id) / CANCELLED).is_file(),
            base_digest=document.get("base_digest", ""),
        )

    def recipe(self, job_id: str) -> dict[str, Any]:
        """A job's recipe in plain values."""
        return dict(self._manifest(job_id).get("recipe", {}))

    def folder(self, job_id: str) -> Path:
        """Where a job keeps its files."""
        return folder_of(self._root, job_id)

    def _manifest(self, job_id: str) -> dict[str, Any]:
        path = self.folder(job_id) / "manifest.json"
        if not path.is_file():
            raise UnknownId(f"no tuning job {job_id[:80]!r}")
        return _read(path)

    def _unfinished(self, job_id: str, holder: str | None) -> JobState:
        if holder == job_id:
            return "running"
        return "cancelled" if (self.folder(job_id) / CANCELLED).is_file() else "interrupted"

    def pid(self, job_id: str) -> int | None:
        """The process of a job; None where it has not begun yet."""
        path = self.folder(job_id) / "pid"
        written = path.read_text() if path.is_file() else ""
        return int(written) if written else None

    def _pid(self, job_id: str) -> int:
        deadline = time.monotonic() + PID_PATIENCE_SECONDS
        while (pid := self.pid(job_id)) is None:
            if time.monotonic() > deadline or self.get(job_id).state != "running":
                raise Conflict("this job has no process that could be stopped")
            time.sleep(0.01)
        return pid

    def _result(self, job_id: str) -> dict[str, Any]:
        path = self.folder(job_id) / "result.json"
        return _read(path) if path.is_file() else {}

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


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise BurnishError(f"{path} is damaged; delete its folder to forget the job") from error
