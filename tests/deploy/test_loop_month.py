"""A month of the loop in minutes: every round is carried out once, whatever happens meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from deploy.forgetting import Forgetting
from deploy.loop import Loop, LoopResult, RoundRequest
from deploy.releases.registry import Registry
from deploy.rounds.round import STAGES
from deploy.rounds.store import Lease, RoundStore
from deploy.rounds.timetable import Timetable
from engine.adapters.slots import AdapterSlots
from engine.errors import BurnishError, Conflict
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.reference import ReferenceEngine
from engine.request import Engine, Score, ScoreRequest
from engine.storage import list_digests
from engine.units import DAY_SECONDS
from feedback_store.curation.decisions import Curation
from feedback_store.examples.split import split_of
from feedback_store.snapshots.taking import take_snapshot
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.deploy.played_rounds import Judge, correct
from tests.support.played_jobs import PlayedJobs
from tuning.jobs.runner import JobRunner
from tuning.recipe import Recipe

pytestmark = pytest.mark.integration

MINUTE = 60.0
BEGIN = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
NAMES = [f"conversation-{number}" for number in range(400)]
TRAIN = [name for name in NAMES if split_of(name) == "train"]
HELDOUT = [name for name in NAMES if split_of(name) == "heldout"]
JOB_MINUTES, EVENTS = 90, 6


class Killed(BaseException):
    """The process is killed: nothing that it had not written is there afterwards."""


class WaryJudge(Judge):
    """A judge of candidates that a test may interrupt."""

    def __init__(self) -> None:
        super().__init__(True, False)
        self.before_score: Callable[[], None] = lambda: None

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        self.before_score()
        return super().score(requests)


@dataclass
class Month:
    """A home, its people, and the server that runs the loop, restarted after each kill."""

    folder: Path
    base: BaseModel
    database: Database
    slots: AdapterSlots
    now: float = BEGIN
    told: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    fates: dict[str, list[Callable[[], None]]] = field(default_factory=dict)
    elapsed: float = 0.0
    kills: int = 0
    gives_back: bool = True
    conflicts: int = 0

    def __post_init__(self) -> None:
        self.home, self.registry = Home(self.folder), Registry(self.database)
        self.store, self.curation = FeedbackStore(self.database), Curation(self.database)
        self.training_set = TrainingSet(EvidenceReader(self.database), self.curation)
        self.jobs, self.judge = PlayedJobs(self.home.bundles, self.base), WaryJudge()
        self.jobs.events_of_each = EVENTS
        self.jobs.while_running = self._tuning  # type: ignore[method-assign]
        self.judge.before_score = lambda: self.suffer("evaluate")
        self.train, self.heldout = iter(TRAIN), iter(HELDOUT)
        self.restart()

    def restart(self) -> None:
        """Begin anew, as a server that was killed does."""
        self.rounds = RoundStore(self.database, now=self.time, monotonic=self.monotonic)
        self.loop = Loop(
            home=self.home,
            base=self.base,
            training_set=self.training_set,
            take_snapshot=partial(
                take_snapshot, self.home.snapshots, self.training_set, self.curation
            ),
            registry=self.registry,
            jobs=cast(JobRunner, self.jobs),
            rounds=self.rounds,
            min_new_pairs=3,
            timetable=Timetable("0 3 * * *", quiet_hours="07:00-22:00", minutes_a_day=60, zone=UTC),
            notify=self.notify,
            now=self.time,
            monotonic=self.monotonic,
        )

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.elapsed

    def pass_minutes(self, minutes: float) -> None:
        self.now += minutes * MINUTE
        self.elapsed += minutes * MINUTE

    def tick(self) -> LoopResult | None:
        """A quarter of an hour later."""
        self.pass_minutes(15)
        try:
            return self.loop.tick(
                cast(Engine, self.judge),
                self.slots,
                lambda: RoundRequest(Recipe(), {}),
                lambda event: None,
                enabled=True,
            )
        except Killed:
            self.restart()
        except Conflict:  # the lease of the one that was killed
            self.conflicts += 1
        except BurnishError as error:
            assert "out of memory" in str(error)
        return None

    def until(self, at: float) -> None:
        while self.now < at:
            self.tick()

    def notify(self, identity: str, document: Mapping[str, Any]) -> None:
        self.told.append((identity, document))
        self.suffer("report")

    def suffer(self, place: str) -> None:
        """Let the next thing happen that waits for this place."""
        if waiting := self.fates.get(place):
            waiting.pop(0)()

    def kill(self) -> None:
        self.kills, self.gives_back = self.kills + 1, False
        raise Killed

    def _tuning(self) -> None:
        self.pass_minutes(JOB_MINUTES / EVENTS)
        self.suffer("tune")

    def forget(self, user: str) -> None:
        forgetting = Forgetting(
            home=self.home,
            database=self.database,
            registry=self.registry,
            jobs=cast(JobRunner, self.jobs),
        )
        forgetting.forget(user)


@pytest.fixture
def month(
    tmp_path: Path,
    database: Database,
    engine: ReferenceEngine,
    tiny_base: BaseModel,
    bundles: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Month:
    month = Month(tmp_path, tiny_base, database, AdapterSlots(engine, tiny_base, bundles))

    def release(lease: Lease) -> None:
        if month.gives_back:
            give_back(lease)
        month.gives_back = True  # the one that was killed has given nothing back

    give_back = Lease.release
    monkeypatch.setattr(Lease, "release", release)
    return month


def test_a_month_of_rounds(month: Month) -> None:
    def fail() -> None:
        month.jobs.failure = "tuning failed: out of memory"

    month.fates = {
        "tune": [lambda: None] * 3 + [month.kill] + [lambda: None] * 9 + [fail],
        "evaluate": [month.kill],
        "report": [month.kill],
    }
    for _ in range(10):
        correct(month.store, next(month.heldout), user="bob")
    for day in range(30):
        if day == 10:
            month.jobs.failure = None
        if day == 16:
            month.fates["tune"] = [lambda: month.forget("ann")]
        if day == 20:
            month.now += 2 * DAY_SECONDS  # the clock jumps
        if day == 22:
            month.now -= DAY_SECONDS
        if day % 2 == 0:
            for _ in range(4):
                user = "ann" if 14 <= day <= 16 else "bob"
                correct(month.store, next(month.train), user=user)
        month.until(BEGIN + (day + 1) * DAY_SECONDS)
    month.until(month.now + 3 * DAY_SECONDS)  # what was begun comes to its end

    finished = [each for each in month.loop.rounds() if each.finished]
    assert len(finished) >= 8
    assert len(finished) >= len(month.loop.rounds()) - 1
    with month.database.read() as connection:
        rows = connection.exec_driver_sql("SELECT round, kind FROM loop_events").all()
    done = Counter((row.round, row.kind) for row in rows if row.kind in STAGES)
    assert set(done.values()) == {1}  # no stage twice
    # Each job was trained once, from its checkpoints on
    assert {month.jobs.done_events[job] for job in month.jobs.trained} <= {EVENTS, 1}
    outcomes = Counter(str(each.ended.document["outcome"]) for each in finished if each.ended)
    assert outcomes["promoted"] >= 1
    assert outcomes["erased"] == 1
    # No lost release: each bundle that is there has a verdict, and its round has been told of
    releases = month.registry.record().releases
    assert set(list_digests(month.home.bundles)) <= set(releases)
    assert (month.kills, month.conflicts) == (3, 3)
    identities = [identity for identity, _ in month.told]
    assert len(set(identities)) == len(finished)
    assert len(identities) == len(finished) + 1  # the one at which it was killed, again
    assert month.registry.live().bundle not in month.registry.tainted()
    # It kept to its hours and its minutes
    worked = month.rounds.history().worked
    by_day = Counter[str]()
    for at, seconds in worked:
        by_day[datetime.fromtimestamp(at, UTC).strftime("%m-%d")] += round(seconds)
    assert max(by_day.values()) <= (60 + JOB_MINUTES / EVENTS) * MINUTE
