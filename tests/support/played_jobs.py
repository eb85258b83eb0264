"""Tuning jobs without a process: each ends at once with a random adapter, or as a test wants."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.errors import BurnishError, Conflict, UnknownId
from engine.models.catalogue import BaseModel
from engine.storage import digest_json, folder_of
from tests.helpers import make_bundle
from tuning.jobs.events import JobEvent, JobStarted
from tuning.jobs.runner import Job, JobState


class PlayedJobs:
    """Stands for `JobRunner`. A job's id is the digest of its snapshot and its recipe.

    `failure` is the error of the jobs to come; `while_running` is called at each event of one.
    """

    def __init__(self, bundles: Path, base: BaseModel) -> None:
        self._bundles, self._base = bundles, base
        self.started: list[dict[str, Any]] = []
        self.failure: str | None = None
        self.running: list[Job] = []
        self.events_of_each = 1  # the number of events of one job
        self.trained: list[str] = []  # jobs that ran, resumed ones again
        self._given: dict[str, dict[str, Any]] = {}
        self._states: dict[str, JobState] = {}
        self._made: dict[str, str] = {}  # the bundles, by job
        self.done_events: Counter[str] = Counter()  # by job; they are its checkpoint

    def while_running(self) -> None:
        """What happens between two events of a job."""

    def start(self, **given: Any) -> str:
        self.started.append(given)
        job = digest_json(["job", given["snapshot"], given["recipe"].as_dict()])
        self._given[job] = given
        if self._states.get(job) != "done":
            self._states[job] = "running"
            self.trained.append(job)
        return job

    def resume(self, job: str) -> str:
        self._states[job] = "running"
        self.trained.append(job)
        return job

    def wait(self, job: str) -> Iterator[JobEvent]:
        while self.done_events[job] < self.events_of_each:
            if self._states[job] != "running":
                return
            self.while_running()
            self.done_events[job] += 1
            yield JobStarted(pid=1, threads=1, priority="idle")
        if self._states[job] == "running":
            self._states[job] = "failed" if self.failure else "done"

    def result(self, job: str) -> str:
        if self._states[job] != "done":
            raise BurnishError(self.failure or f"tuning {self._states[job]}")
        if job not in self._made:
            manifest = {"snapshot": self._given[job]["snapshot"]}
            self._made[job] = make_bundle(self._bundles, self._base, manifest=manifest)
        return self._made[job]

    def cancel(self, job: str) -> None:
        if self._states[job] != "running":
            raise Conflict("this job is not running")
        self._states[job] = "cancelled"

    def stop(self, job: str) -> None:
        if self._states[job] == "running":
            self.cancel(job)

    def events(self, _job: str) -> list[JobEvent]:
        return []

    def get(self, job: str) -> Job:
        if job not in self._given:
            raise UnknownId(job)
        bundle = self.result(job) if self._states[job] == "done" else None
        return Job(job, self._states[job], self._given[job]["snapshot"], bundle, None, 0.0)

    def list(self) -> list[Job]:
        return self.running + [self.get(job) for job in self._states]

    def recipe(self, job: str) -> dict[str, Any]:
        return dict(json.loads(json.dumps(self._given[job]["recipe"].as_dict())))

    def folder(self, job: str) -> Path:
        return folder_of(self._bundles.parent / "jobs", job)
