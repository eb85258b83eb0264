"""The life of a canary: it starts, is looked at, decides, survives a restart, and forgets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.canary.canaries import Canaries, CanaryOptions
from deploy.canary.plan import Canary
from deploy.canary.watch import CanaryWatch
from deploy.releases.events import LOOP, CanaryFigures
from deploy.releases.promotion import Releases
from deploy.releases.registry import Registry
from engine.adapters.slots import AdapterSlots
from engine.errors import Conflict, InvalidInput, UnknownId
from engine.models.catalogue import BaseModel
from engine.prompts.modes import make_template
from engine.reference import ReferenceEngine
from engine.units import DAY_SECONDS
from feedback_store.privacy.erasure import forget_user
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from tests.helpers import make_bundle

SURE = {"share": 0.5, "promote_error": 0.2, "rollback_error": 0.2, "votes": 40}


class Stage:
    """A store with two releases on the tiny model, and people who say what a test wants."""

    def __init__(self, database: Database, bundles: Path, base: BaseModel) -> None:
        self.database, self.bundles, self.base = database, bundles, base
        self.registry = Registry(database)
        self.store = FeedbackStore(database)
        self.now = time.time()
        self.new = make_bundle(bundles, base, seed=1)
        self.registry.add(self.new, {"verdict": "better", "incumbent": None})
        self.canaries = self.opened()
        self._number = 0

    def opened(self) -> Canaries:
        """The canaries of this store, as another process would open them."""
        return Canaries(
            Registry(self.database),
            self.database,
            lambda: Releases(self.registry, self.bundles, self.base),
            lambda: self.base.digest,
            CanaryOptions(),
            clock=lambda: self.now,
        )

    def start(self, **more: float) -> Canary:
        return self.canaries.start_by("the operator", self.new, **{**SURE, **more})

    def answer(self, canary: Canary, arm: str, *, status: str = "done", user: str = "ann") -> str:
        """The answer of an arm in a conversation that begins now."""
        while True:
            self._number += 1
            conversation = f"c{self._number}"
            if canary.plan.arm_of(conversation) == arm:
                break
        turn = self.store.add_turn(
            user_id=user,
            question="What is a leaf?",
            template=make_template("plain", ()),
            conversation_id=conversation,
        )
        answer = self.store.begin_answer(
            turn.id,
            base_digest=self.base.digest,
            adapter_digest=canary.plan.release_of(arm),
            sampling={},
            seed=0,
        )
        self.store.finish_answer(answer, status=status, text="A leaf.")  # type: ignore[arg-type]
        return answer

    def vote(self, canary: Canary, candidate: bool, live: bool, times: int = 1) -> None:
        for _ in range(times):
            for arm, good in (("candidate", candidate), ("live", live)):
                self.store.vote(self.answer(canary, arm), "ann", 1 if good else -1)


@pytest.fixture
def stage(database: Database, bundles: Path, tiny_base: BaseModel) -> Iterator[Stage]:
    yield Stage(database, bundles, tiny_base)


def test_a_better_candidate_goes_live_with_its_figures_in_the_record(stage: Stage) -> None:
    canary = stage.start()
    stage.vote(canary, candidate=True, live=False, times=15)
    status = stage.canaries.look()
    assert status is not None and status.decision == "promote"
    assert stage.registry.live().bundle == stage.new
    assert stage.canaries.running() is None
    newest = stage.canaries.newest()
    assert newest is not None and newest.outcome == "promoted"
    (figures,) = (e for e in stage.registry.events() if isinstance(e, CanaryFigures))
    assert figures.decision == "promote" and figures.actor == "the operator"
    assert figures.arms["candidate"]["good"] == figures.arms["live"]["bad"] > 2
    assert stage.registry.history()[0].actor == "the operator"


def test_a_worse_candidate_never_goes_live(stage: Stage) -> None:
    canary = stage.start()
    stage.vote(canary, candidate=False, live=True, times=15)
    stage.canaries.look()
    assert stage.registry.live().bundle is None
    newest = stage.canaries.newest()
    assert newest is not None and newest.outcome == "rolled back"


def test_a_canary_goes_on_after_a_restart(stage: Stage) -> None:
    canary = stage.start()
    stage.vote(canary, candidate=True, live=True, times=2)
    reopened = stage.opened()
    assert reopened.running() == canary
    assert reopened.status(canary).standing.votes == 4


@pytest.mark.parametrize("votes", [20, 2])
def test_the_budget_of_votes_or_days_ends_it_undecided(stage: Stage, votes: int) -> None:
    canary = stage.start()
    for index in range(votes):
        stage.vote(canary, candidate=index % 2 == 0, live=index % 2 == 0)
    if votes < 20:
        stage.now += 13.9 * DAY_SECONDS
        assert stage.canaries.look() is not None and stage.canaries.running() is not None
        stage.now += 0.2 * DAY_SECONDS
    stage.canaries.look()
    newest = stage.canaries.newest()
    assert newest is not None and newest.outcome == "undecided"
    assert stage.registry.live().bundle is None


def test_errors_of_the_candidate_roll_it_back_before_anybody_votes(stage: Stage) -> None:
    canary = stage.start()
    for arm in ("live", "candidate", "candidate", "candidate"):
        stage.answer(canary, arm, status="done" if arm == "live" else "failed")
    status = stage.canaries.look()
    assert status is not None and status.reason == "too many errors"
    newest = stage.canaries.newest()
    assert newest is not None and newest.outcome == "rolled back"


def test_what_a_forgotten_person_said_does_not_count_any_more(stage: Stage) -> None:
    canary = stage.start()
    stage.vote(canary, candidate=True, live=False)
    bobs = stage.answer(canary, "candidate", user="bob")
    stage.store.vote(bobs, "bob", -1)
    assert stage.canaries.status(canary).standing.arms["candidate"].bad == 1
    forget_user(stage.database, "bob")
    assert stage.canaries.status(canary).standing.arms["candidate"].bad == 0
    assert stage.canaries.status(canary).standing.votes == 2


def test_a_tainted_candidate_is_served_to_nobody(stage: Stage) -> None:
    stage.start()
    stage.registry.taint([stage.new], "it learnt from what was erased")
    assert stage.canaries.running() is None
    assert stage.canaries.recent() == []
    with pytest.raises(Conflict, match="tainted"):
        stage.start()


def test_it_stops_when_the_live_release_gives_way(stage: Stage) -> None:
    stage.start()
    other = make_bundle(stage.bundles, stage.base, seed=2)
    stage.registry.add(other, {"verdict": "better"})
    stage.registry.promote(other, stage.registry.live())
    newest = stage.canaries.newest()
    assert newest is not None and newest.outcome == "stopped"
    assert stage.canaries.recent() == [newest]  # its conversations go on as they began
    stage.now += 1.1 * DAY_SECONDS
    assert stage.canaries.recent() == []


def test_comparisons_are_with_the_candidate_of_the_canary_before_one_that_waits(
    stage: Stage,
) -> None:
    waiting = make_bundle(stage.bundles, stage.base, seed=2)
    stage.registry.add(waiting, {"verdict": "better", "incumbent": None})
    assert stage.canaries.compared() == waiting
    stage.start()
    assert stage.canaries.compared() == stage.new


def test_one_canary_at_a_time_and_only_of_what_can_be_tried(stage: Stage) -> None:
    with pytest.raises(Conflict, match="no canary runs"):
        stage.canaries.stop("the operator")
    with pytest.raises(UnknownId):
        stage.canaries.start_by("the operator", "sha256:unknown")
    with pytest.raises(InvalidInput, match="share"):
        stage.start(share=0.7)
    canary = stage.start()
    with pytest.raises(Conflict, match="runs already"):
        stage.start()
    stage.vote(canary, candidate=True, live=True)
    assert stage.canaries.stop("the operator").standing.votes == 2
    newest = stage.canaries.newest()
    assert newest is not None and newest.outcome == "undecided"


def test_the_loop_starts_once_and_promotes_itself(stage: Stage) -> None:
    stage.canaries.start(stage.new)
    begun = stage.canaries.running()
    stage.canaries.start(stage.new)  # of a loop that was killed
    assert stage.canaries.running() == begun and begun is not None
    assert begun.actor == LOOP
    assert stage.canaries.decision() == "running"
    stage.vote(begun, candidate=True, live=False, times=60)
    status = stage.canaries.look()
    assert status is not None and status.decision == "promote"
    assert stage.canaries.running() is not None  # the candidate goes on until the loop asks
    assert stage.canaries.decision() == "promote"
    assert stage.canaries.running() is None
    assert stage.registry.live().bundle is None  # the loop's next stage does it
    assert stage.canaries.decision() == "promote"  # of a loop that was killed


def test_the_loop_does_not_end_what_a_person_started(stage: Stage) -> None:
    stage.start()
    with pytest.raises(Conflict, match="runs already"):
        stage.canaries.start(stage.new)


def test_a_server_keeps_the_candidate_loaded_while_the_canary_runs(
    stage: Stage, engine: ReferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = AdapterSlots(engine, stage.base, stage.bundles)
    unloaded: list[str] = []
    monkeypatch.setattr(engine, "unload_adapter", unloaded.append)
    watch = CanaryWatch(stage.canaries, slots)
    stage.start()
    watch.look()
    with slots.hold(stage.new):
        pass
    assert unloaded == []
    stage.canaries.stop("the operator")
    watch.look()
    assert unloaded == [stage.new]


def test_a_candidate_that_the_engine_refuses_is_rolled_back(
    stage: Stage, engine: ReferenceEngine
) -> None:
    broken = make_bundle(stage.bundles, stage.base, seed=3, scale=float("nan"))
    stage.registry.add(broken, {"verdict": "better"})
    stage.canaries.start_by("the operator", broken)
    CanaryWatch(stage.canaries, AdapterSlots(engine, stage.base, stage.bundles)).look()
    newest = stage.canaries.newest()
    assert newest is not None and newest.outcome == "rolled back"
