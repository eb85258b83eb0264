"""Rounds that a restart interrupts, that wait for a canary, or that fail at a stage."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from deploy.loop import Loop, RoundRequest
from deploy.releases.events import CanaryDecision
from deploy.releases.registry import Registry
from engine.adapters.slots import AdapterSlots
from engine.errors import BurnishError
from engine.request import Engine
from feedback_store.storage.store import FeedbackStore
from tests.deploy.played_rounds import HELDOUT, TRAIN, Judge, correct, run
from tests.support.played_jobs import PlayedJobs
from tuning.recipe import Recipe


class Killed(BaseException):
    """The server is killed."""


def test_a_server_that_was_restarted_during_a_job_judges_its_bundle(
    loop: Loop, store: FeedbackStore, registry: Registry, slots: AdapterSlots, jobs: PlayedJobs
) -> None:
    """The loop need not be enabled: somebody has asked for this round."""

    def kill() -> None:
        jobs.while_running = lambda: None  # type: ignore[method-assign]
        raise Killed

    correct(store, *TRAIN[:5], *HELDOUT[:10])
    jobs.while_running = kill  # type: ignore[method-assign]
    with pytest.raises(Killed):
        run(loop, Judge(True, False), slots, force=True)
    assert registry.list() == []
    judge = cast(Engine, Judge(True, False))
    asked = lambda: RoundRequest(Recipe(), {})  # noqa: E731
    result = loop.tick(judge, slots, asked, lambda event: None, enabled=False)
    assert result is not None
    assert (result.outcome, result.round) == ("promoted", 1)
    assert registry.live().bundle == result.bundle
    assert len(jobs.started) == 1  # it ran on meanwhile
    assert loop.tick(judge, slots, asked, lambda event: None, enabled=False) is None


def test_what_is_trained_on_unchanged_data_is_no_new_release(
    loop: Loop, store: FeedbackStore, registry: Registry, slots: AdapterSlots
) -> None:
    correct(store, *TRAIN[:5], *HELDOUT[:10])
    first = run(loop, Judge(True, False), slots)
    made = registry.list()
    again = run(loop, Judge(True, False), slots, force=True)
    assert (again.outcome, again.promoted) == ("unchanged", False)
    assert str(first.bundle)[7:19] in again.reason
    assert registry.list() == made


def test_a_job_that_is_cancelled_ends_its_round(
    loop: Loop, store: FeedbackStore, registry: Registry, slots: AdapterSlots, jobs: PlayedJobs
) -> None:
    correct(store, *TRAIN[:5])
    jobs.while_running = lambda: jobs.cancel(jobs.trained[0])  # type: ignore[method-assign]
    result = run(loop, Judge(True, False), slots)
    assert (result.outcome, result.bundle) == ("cancelled", None)
    assert loop.rounds()[0].finished
    assert registry.list() == []


class PlayedCanary:
    """A canary whose decision a test makes."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.says: CanaryDecision = "running"

    def start(self, release: str) -> None:
        self.started.append(release)

    def decision(self) -> CanaryDecision:
        return self.says


@pytest.mark.parametrize("decision", ["promote", "roll back", "undecided"])
def test_a_better_candidate_waits_for_its_canary(
    loop: Loop,
    store: FeedbackStore,
    registry: Registry,
    slots: AdapterSlots,
    decision: CanaryDecision,
) -> None:
    canary = PlayedCanary()
    loop._stages = replace(loop._stages, canary=canary)
    correct(store, *TRAIN[:5], *HELDOUT[:10])
    waits = run(loop, Judge(True, False), slots)
    assert (waits.outcome, registry.live().bundle) == ("waits", None)
    assert run(loop, Judge(True, False), slots).outcome == "waits"
    assert canary.started == [waits.bundle]
    canary.says = decision
    result = run(loop, Judge(True, False), slots)
    assert result.promoted == (decision == "promote")
    assert registry.live().bundle == (waits.bundle if result.promoted else None)
    assert result.promoted or decision in result.reason


def test_a_stage_that_failed_is_tried_again_and_five_times_end_the_round(
    loop: Loop, store: FeedbackStore, registry: Registry, slots: AdapterSlots, jobs: PlayedJobs
) -> None:
    correct(store, *TRAIN[:5])
    jobs.failure = "tuning failed: out of memory"
    for attempt in range(1, 6):
        with pytest.raises(BurnishError, match="out of memory"):
            run(loop, Judge(True, False), slots)
        (only,) = loop.rounds()
        assert len(only.failures) == attempt
        assert only.finished == (attempt == 5)
    assert only.summary == "failed (tuning failed: out of memory)"
