"""Who answers a conversation while a canary runs, and after it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import pytest

from app.answering.canary_routing import CanaryRouter
from deploy.canary.plan import Canary, CanaryPlan
from engine.adapters.slots import AdapterSlots
from engine.errors import InvalidBundle, Overloaded
from engine.prompts.modes import make_template
from engine.request import LIVE
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from tests.support.databases import migrated_sqlite

NEW, OLD = "sha256:new", "sha256:old"
PLAN = CanaryPlan(NEW, OLD, "salt", share=0.5)
NAMES = [f"c{i}" for i in range(100)]
IN_CANDIDATE = next(name for name in NAMES if PLAN.arm_of(name) == "candidate")
IN_LIVE = next(name for name in NAMES if PLAN.arm_of(name) == "live")


class Slots:
    """The adapters that are pinned, and those that cannot be."""

    def __init__(self) -> None:
        self.live: str | None = OLD
        self.refusing: dict[str, Exception] = {}
        self.pinned: list[str | None] = []

    @contextmanager
    def hold(self, digest: str | None) -> Iterator[str | None]:
        if digest in self.refusing:
            raise self.refusing[digest]
        self.pinned.append(digest)
        yield digest
        self.pinned.remove(digest)

    def pin_live(self) -> object:
        return self.hold(self.live)


class Stage:
    """A router over a real store."""

    def __init__(self, store: FeedbackStore) -> None:
        self.store = store
        self.slots = Slots()
        self.canaries: list[Canary] = []
        self.refused: list[tuple[str, str]] = []
        self.router = CanaryRouter(cast(AdapterSlots, self.slots), store, self)

    def recent(self) -> list[Canary]:
        return self.canaries

    def refuse(self, candidate: str, reason: str) -> None:
        self.refused.append((candidate, reason))

    def ask(self, conversation: str, adapter: str | None = LIVE) -> str | None:
        """Who answers the next question of a conversation; the answer is stored."""
        with self.router.pin(adapter, conversation) as pinned:
            assert self.slots.pinned == [pinned]
        turn = self.store.add_turn(
            user_id="ann",
            question="What is a leaf?",
            template=make_template("plain", ()),
            conversation_id=conversation,
        )
        self.store.begin_answer(
            turn.id, base_digest="sha256:base", adapter_digest=pinned, sampling={}, seed=0
        )
        return pinned


@pytest.fixture
def stage(tmp_path: object) -> Iterator[Stage]:
    database = Database(migrated_sqlite(tmp_path))  # type: ignore[arg-type]
    yield Stage(FeedbackStore(database))
    database.close()


def test_without_a_canary_the_live_release_answers(stage: Stage) -> None:
    assert stage.ask(IN_CANDIDATE) == OLD


def test_a_conversation_stays_with_the_release_of_its_first_answer(stage: Stage) -> None:
    stage.canaries = [Canary(PLAN, time.time())]
    assert [stage.ask(IN_CANDIDATE) for _ in range(3)] == [NEW] * 3
    assert [stage.ask(IN_LIVE) for _ in range(3)] == [OLD] * 3


def test_a_conversation_that_began_before_is_no_part_of_it(stage: Stage) -> None:
    assert stage.ask(IN_CANDIDATE) == OLD
    stage.canaries = [Canary(PLAN, time.time())]
    assert stage.ask(IN_CANDIDATE) == OLD


def test_a_release_that_a_person_chose_answers(stage: Stage) -> None:
    stage.canaries = [Canary(PLAN, time.time())]
    assert stage.ask(IN_CANDIDATE, "sha256:chosen") == "sha256:chosen"
    assert stage.ask(IN_CANDIDATE) == OLD  # it began with another release


def test_an_answer_without_a_conversation_is_the_live_releases(stage: Stage) -> None:
    stage.canaries = [Canary(PLAN, time.time())]
    with stage.router.pin(LIVE) as pinned:
        assert pinned == OLD


def test_after_a_rollback_nobody_gets_the_candidate(stage: Stage) -> None:
    running = Canary(PLAN, time.time())
    stage.canaries = [running]
    assert stage.ask(IN_CANDIDATE) == NEW
    stage.canaries = [replace(running, ended_at=time.time(), outcome="rolled back")]
    assert stage.ask(IN_CANDIDATE) == OLD


def test_after_an_end_without_a_decision_conversations_go_on_as_they_began(stage: Stage) -> None:
    running = Canary(PLAN, time.time())
    stage.canaries = [running]
    assert stage.ask(IN_CANDIDATE) == NEW
    stage.canaries = [replace(running, ended_at=time.time(), outcome="undecided")]
    assert stage.ask(IN_CANDIDATE) == NEW
    later = next(name for name in reversed(NAMES) if PLAN.arm_of(name) == "candidate")
    assert stage.ask(later) == OLD  # one that begins after it


def test_a_candidate_that_cannot_be_served_is_reported_and_the_live_release_answers(
    stage: Stage,
) -> None:
    stage.canaries = [Canary(PLAN, time.time())]
    stage.slots.refusing[NEW] = InvalidBundle(["a tensor is missing"])
    assert stage.ask(IN_CANDIDATE) == OLD
    assert stage.refused == [(NEW, "adapter bundle refused: a tensor is missing")]


def test_a_full_queue_is_no_fault_of_the_candidate(stage: Stage) -> None:
    stage.canaries = [Canary(PLAN, time.time())]
    stage.slots.refusing[NEW] = Overloaded("the queue is full")
    with pytest.raises(Overloaded):
        stage.ask(IN_CANDIDATE)
    assert stage.refused == []
