"""Tuning jobs: a process of their own, one at a time per home, found again after a crash.

A job's id is the digest of all it depends on, so starting the same job again resumes it. The
lease is an flock held by the job's process: a dead owner cannot hold it. Knows no trainer; the
worker (`tuning.worker`) is started as `python -m tuning.worker JOB_FOLDER`.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from engine.errors import BurnishError, Conflict, UnknownId
from engine.storage import digest_json, folder_of, list_digests, write_atomically
from tuning.progress import read_progress
from tuning.recipe import Recipe

JobState = Literal["running", "done", "failed", "interrupted"]


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

    @property
    def id(self) -> str:
        """Digest of what decides the result."""
        return digest_json([self.base_digest, self.snapshot, self.recipe])


@dataclass(frozen=True, slots=True)
class Job:
    """A job as found on disk."""

    id: str
    state: JobState
    snapshot: str
    bundle: str | None
    error: str | None
    started_at: float


class JobRunner:
    """The jobs of one home."""

    def __init__(self, home: Path, models: Path) -> None:
        self._home = home
        self._models = models
        self._root = home / "jobs"
        self._root.mkdir(parents=True, exist_ok=True)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self, *, base_name: str, base_digest: str, snapshot: str, recipe: Recipe,
        recipe_origins: dict[str, str],
    ) -> str:  # fmt: skip
        """Start or resume a job; returns its id. Raises `Conflict` while another runs.

        A job that is already done is not run again: the same inputs make the same adapter.
        """
        spec = JobSpec(
            str(self._home), str(self._models), base_name, base_digest, snapshot,
            recipe.as_dict(), recipe_origins,
        )  # fmt: skip
        folder = folder_of(self._root, spec.id)
        if self._result(spec.id).get("state") == "done":
            return spec.id
        with self._lease(patience_seconds=1) as descriptor:
            folder.mkdir(exist_ok=True)
            (folder / "result.json").unlink(missing_ok=True)
            document = {**asdict(spec), "started_at": time.time()}
            write_atomically(folder / "manifest.json", json.dumps(document).encode())
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, spec.id.encode(), 0)
            with (folder / "log.txt").open("ab") as log:
                worker = subprocess.Popen(  # noqa: S603 - our own module
                    [sys.executable, "-m", "tuning.worker", str(folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[descriptor],  # the lease lives as long as the worker
                    start_new_session=True,
                )
            write_atomically(folder / "pid", str(worker.pid).encode())
            self._processes[spec.id] = worker
        return spec.id

    def wait(self, job_id: str, poll_seconds: float = 0.2) -> Iterator[dict[str, Any]]:
        """Progress events as they come, until the job ends."""
        seen = 0
        while True:
            running = self.get(job_id).state == "running"
            events = read_progress(self.folder(job_id) / "progress.jsonl")
            yield from events[seen:]
            seen = len(events)
            if not running:
                return
            time.sleep(poll_seconds)

    def result(self, job_id: str) -> str:
        """The bundle of a finished job; raises `BurnishError` with the reason it has none."""
        job = self.get(job_id)
        if job.bundle is None:
            raise BurnishError(f"tuning {job.state}: {job.error or 'see its log'}")
        return job.bundle

    def cancel(self, job_id: str) -> None:
        """Kill a running job; it can be resumed from its last checkpoint."""
        if self._leaseholder() != job_id:
            raise Conflict("this job is not running")
        pid = int((self.folder(job_id) / "pid").read_text())
        os.killpg(pid, signal.SIGTERM)

    def list(self) -> Sequence[Job]:
        """All jobs, the newest first."""
        jobs = [self.get(job_id) for job_id in list_digests(self._root)]
        return sorted(jobs, key=lambda job: job.started_at, reverse=True)

    def get(self, job_id: str) -> Job:
        """One job."""
        manifest = self.folder(job_id) / "manifest.json"
        if not manifest.is_file():
            raise UnknownId(f"no tuning job {job_id[:80]!r}")
        document = json.loads(manifest.read_text())
        holder = self._leaseholder()  # before the result: a job ends by writing it, then exits
        result = self._result(job_id)
        state: JobState = result.get("state") or ("running" if holder == job_id else "interrupted")
        return Job(
            job_id, state, document["snapshot"], result.get("bundle"), result.get("error"),
            document["started_at"],
        )  # fmt: skip

    def folder(self, job_id: str) -> Path:
        """Where a job keeps its files."""
        return folder_of(self._root, job_id)

    def _result(self, job_id: str) -> dict[str, Any]:
        path = self.folder(job_id) / "result.json"
        return dict(json.loads(path.read_text())) if path.is_file() else {}

    def _lease(self, patience_seconds: float) -> _Lease:
        return _Lease(self._root / "lease", patience_seconds, fcntl.LOCK_EX)

    def _leaseholder(self) -> str | None:
        """The id of the running job."""
        for process in self._processes.values():
            process.poll()  # reap, so that a dead child's lease is gone
        try:
            with _Lease(self._root / "lease", 0, fcntl.LOCK_SH):
                return None
        except Conflict:
            return (self._root / "lease").read_text()


class _Lease:
    """A flock; closing the descriptor gives it back unless a child still has it.

    Looking whether the lease is free shares it for a moment, so whoever means to have it alone is
    patient.
    """

    def __init__(self, path: Path, patience_seconds: float, kind: int) -> None:
        self._path = path
        self._kind = kind
        self._deadline = time.monotonic() + patience_seconds

    def __enter__(self) -> int:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        while True:
            try:
                fcntl.flock(self._descriptor, self._kind | fcntl.LOCK_NB)
                return self._descriptor
            except BlockingIOError:
                if time.monotonic() < self._deadline:
                    time.sleep(0.01)
                    continue
                os.close(self._descriptor)
                raise Conflict("a tuning job is already running; one runs at a time") from None

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
