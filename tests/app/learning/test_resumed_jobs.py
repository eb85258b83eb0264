"""A job that is resumed in the console ends as any other, with a running engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from app.service import Service
from deploy.loop import LoopResult, RoundRequest
from engine.errors import BurnishError, Conflict, InvalidInput
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.prompts.modes import PromptTemplate
from feedback_store.records import ImportedAnswer, ImportedChoice, ImportedTurn
from tests.helpers import make_bundle
from tests.support.waiting import wait_until
from tuning.jobs.events import BundlePublished, JobEvent
from tuning.jobs.runner import Job, JobRunner, JobState
from tuning.recipe import Recipe

pytestmark = pytest.mark.integration


def pairs(count: int) -> list[ImportedTurn]:
    answers = ImportedAnswer("The sea."), ImportedAnswer("The cat sat on the warm stone.")
    return [
        ImportedTurn(
            (Message("user", f"Question {number}?"),),
            answers,
            (ImportedChoice("ann", 0, 1, "left"),),
        )
        for number in range(count)
    ]


# A job that is resumed in the console, with a running engine


@dataclass
class Played:
    """Jobs without a process: one that was stopped and, resumed, ends when it is told."""

    snapshot: str
    bundle: str | BurnishError
    resumed: list[str] = field(default_factory=list)
    may_end: threading.Event = field(default_factory=threading.Event)
    awaited: threading.Event = field(default_factory=threading.Event)
    id: str = "sha256:" + "7" * 64

    def resume(self, job_id: str) -> str:
        if self.resumed:
            raise Conflict("a tuning job is already running; one runs at a time")
        self.resumed.append(job_id)
        return job_id

    def wait(self, job_id: str) -> Iterator[JobEvent]:
        self.awaited.set()
        assert self.may_end.wait(timeout=30)
        yield BundlePublished(bundle="")

    def result(self, job_id: str) -> str:
        if isinstance(self.bundle, BurnishError):
            raise self.bundle
        return self.bundle

    def get(self, job_id: str) -> Job:
        failed = isinstance(self.bundle, BurnishError)
        state: JobState = "running" if self.resumed else "interrupted"
        if self.resumed and self.may_end.is_set():
            state = "failed" if failed else "done"
        return Job(job_id, state, self.snapshot, None, None, 0.0)

    def list(self) -> list[Job]:
        return []

    def recipe(self, job_id: str) -> dict[str, Any]:
        return Recipe().as_dict()


def played_jobs(service: Service, bundle: str | BurnishError) -> Played:
    """In place of the home's own, over a snapshot of forty pairs."""
    service.workspace.store.add_imported(pairs(40), PromptTemplate("plain", "", "", ()), "ann")
    jobs = Played(service.workspace.take_snapshot(), bundle)
    service.workspace.jobs = cast(JobRunner, jobs)
    return jobs


def test_the_bundle_of_a_job_that_was_resumed_is_judged_as_any_other(
    service: Service, tiny_base: BaseModel
) -> None:
    bundle = make_bundle(service.workspace.home.bundles, tiny_base)
    jobs = played_jobs(service, bundle)
    service.rounds.resume_job(jobs.id)
    assert (jobs.resumed, service.rounds.last) == ([jobs.id], "running")
    with pytest.raises(Conflict, match="a round is already running"):
        service.rounds.run()
    assert service.workspace.registry.list() == []
    jobs.may_end.set()
    wait_until(lambda: not service.rounds.running, seconds=120)
    (release,) = service.workspace.registry.list()
    assert (release.bundle, release.report["snapshot"]) == (bundle, jobs.snapshot)
    assert service.rounds.last.startswith(f"{bundle[7:19]}: {release.report['verdict']}")
    assert service.workspace.registry.live().bundle is None


@pytest.mark.parametrize("promotes", [True, False])
def test_a_round_by_hand_promotes_by_the_settings_alone(
    service: Service, monkeypatch: pytest.MonkeyPatch, *, promotes: bool
) -> None:
    """What the loop is asked for by the button, and by `loop run --force`."""
    workspace, asked = service.workspace, []
    workspace.settings = workspace.settings.model_copy(update={"loop_promotes": promotes})
    with pytest.raises(InvalidInput, match="nothing to train on"):
        service.rounds.start_round("ann")
    workspace.store.add_imported(pairs(4), PromptTemplate("plain", "", "", ()), "ann")

    def run(_engine: object, _slots: object, request: RoundRequest, _report: object) -> LoopResult:
        asked.append(request)
        return LoopResult(ran=True, reason="played")

    monkeypatch.setattr(workspace.loop, "run", run)
    service.rounds.start_round("ann")
    wait_until(lambda: not service.rounds.running)
    (request,) = asked
    assert (request.forced, request.promotes, request.actor) == (True, promotes, "ann")
    assert request.recipe == workspace.loop_recipe()[0]
    assert service.rounds.last == "played"


def test_a_resumed_job_that_ends_without_a_bundle_says_why_and_leaves_room_for_the_next(
    service: Service,
) -> None:
    jobs = played_jobs(service, BurnishError("tuning failed: the disk is full"))
    service.rounds.resume_job(jobs.id)
    assert jobs.awaited.wait(timeout=30)
    jobs.may_end.set()
    wait_until(lambda: not service.rounds.running)
    assert service.rounds.last == "failed: tuning failed: the disk is full"
    assert not service.workspace.loop.rounds()[0].finished  # it is tried again
    for _ in range(2):  # what refuses a job is heard by who asked, and holds up nothing
        with pytest.raises(Conflict, match="one runs at a time"):
            service.rounds.resume_job(jobs.id)
    assert service.rounds.last == "failed: tuning failed: the disk is full"
