"""The stages of a round, in their order. `deploy.loop` calls one after the other.

Each returns the document that records it. What a stage does may be done again after a kill, since
the document is written last: a snapshot, a job and a bundle are named by their content, an
evaluation is a newer report, and a promotion that has happened is found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deploy.releases.events import LOOP
from deploy.releases.promotion import Releases
from deploy.releases.registry import Registry
from deploy.rounds.canary_stage import CanaryStage
from deploy.rounds.evidence import EvidenceWatch
from deploy.rounds.judging import Judging
from deploy.rounds.round import CANARY_BEGUN, Round
from deploy.rounds.store import RoundStore
from deploy.rounds.timetable import Timetable
from deploy.rounds.work import RoundEnded, RoundWork, StageDocument, Unfinished
from engine.adapters.slots import AdapterSlots
from engine.errors import BurnishError, Conflict
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.request import Engine
from engine.storage import folder_of, list_digests, read_manifest, short_id
from tuning.jobs.events import Report
from tuning.jobs.runner import JobRunner
from tuning.recipe import recipe_from_dict
from tuning.trainability import require_trainable

Notify = Callable[[str, Mapping[str, Any]], None]  # takes an id of the delivery and a document
CANARY_RUNS = "the canary has not decided yet"
ERASED = "its data was erased meanwhile"
CANCELLED_JOB = "its tuning job was cancelled"
QUIET_NOW, USED_UP = "quiet hours have begun", "today's minutes of work are used up"


def unchanged(bundle: str) -> str:
    """Return why nothing is trained where the same job has made a release."""
    return (
        f"nothing has changed since release {short_id(bundle)} was trained: it would be made again"
    )


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages of one home. Without a `canary` a better candidate goes live at once."""

    home: Home
    base: BaseModel
    take_snapshot: Callable[[], str]
    registry: Registry
    releases: Releases
    jobs: JobRunner
    rounds: RoundStore
    evidence: EvidenceWatch
    judging: Judging
    timetable: Timetable
    canary: CanaryStage | None
    notify: Notify | None
    now: Callable[[], float]

    def require_artefacts(self, round_: Round) -> None:
        """Raise `RoundEnded` where an erasure has reached what the round works on."""
        if self.is_erased(round_):
            raise RoundEnded("erased", ERASED)

    def is_erased(self, round_: Round) -> bool:
        """Return whether an erasure has rewritten the round's snapshot or deleted its bundle.

        Once the bundle is judged, the snapshot is needed no more.
        """
        bundle = round_.bundle
        if bundle is not None and (
            bundle in self.registry.tainted() or not folder_of(self.home.bundles, bundle).is_dir()
        ):
            return True
        if round_.snapshot is None or round_.verdict is not None:
            return False
        return round_.snapshot not in list_digests(self.home.snapshots)

    def freeze(self, work: RoundWork, engine: Engine, slots: AdapterSlots) -> StageDocument:
        """Stage 1: the examples of now, without those that people contradict by now."""
        require_trainable(self.base.folder, recipe_from_dict(work.round.begun["recipe"]))
        snapshot = self.evidence.without_outdated(engine, slots, self.take_snapshot())
        manifest = read_manifest(folder_of(self.home.snapshots, snapshot))
        return {"snapshot": snapshot, "since_event": manifest.get("since_event", 0)}

    def tune(self, work: RoundWork, report: Report) -> StageDocument:
        """Stage 2: the job, from its last checkpoint where it has one.

        Raises `RoundEnded` where the operator cancels it, or where the same job has made a release.
        """
        job = self._start_job(work)
        was_done = self.jobs.get(job).state == "done"
        seconds_left = self.timetable.seconds_left(self.rounds.history().worked, self.now())
        for event in self.jobs.wait(job):
            report(event)
            if (reason := self._pause_reason(work, seconds_left)) is not None:
                self.jobs.stop(job)
                raise Unfinished(reason)
        if self.jobs.get(job).state == "cancelled":
            raise RoundEnded("cancelled", CANCELLED_JOB)
        bundle = self.jobs.result(job)
        if was_done and self._is_judged(bundle):
            raise RoundEnded("unchanged", unchanged(bundle))
        return {"job": job, "bundle": bundle}

    def evaluate(self, work: RoundWork, engine: Engine, slots: AdapterSlots) -> StageDocument:
        """Stage 3: the evaluation and the gate's verdict, which the release record keeps."""
        bundle, snapshot = _trained(work.round)
        judged = self.judging.evaluate(engine, slots, bundle, snapshot)
        return {"verdict": judged.gate.verdict, "reason": judged.gate.reason}

    def ask_canary(self, work: RoundWork) -> StageDocument:
        """Stage 4: what people say of a better candidate; passed through without a canary."""
        if self.canary is None or not work.round.may_go_live:
            return {"decision": None}
        if not work.round.canary_begun:
            bundle, _ = _trained(work.round)
            self.canary.start(bundle)
            work.record(CANARY_BEGUN, {})
        decision = self.canary.decision()
        if decision == "running":
            raise Unfinished(CANARY_RUNS)
        return {"decision": decision}

    def promote(self, work: RoundWork) -> StageDocument:
        """Stage 5: make a better candidate live, unless the canary advises against it.

        A loop that was killed after the pointer had moved finds it there.
        """
        bundle, _ = _trained(work.round)
        stages = work.round.stages
        reason, decision = stages["evaluate"]["reason"], stages["canary"]["decision"]
        if not work.round.may_go_live:
            return {"promoted": False, "reason": reason}
        if decision not in (None, "promote"):
            return {"promoted": False, "reason": f"the canary's decision is: {decision}"}
        if self.registry.live().bundle != bundle:
            try:
                self.releases.promote(bundle, reason=reason, actor=LOOP)
            except Conflict as error:  # another release went live: it waits for the operator
                return {"promoted": False, "reason": str(error)}
        return {"promoted": True, "reason": reason}

    def tell(self, work: RoundWork) -> StageDocument:
        """Stage 6: tell the operator's URL, where there is one. It may be away."""
        ended = work.ended
        assert ended is not None, "a round is told of at its end"
        document = {
            "round": work.round.number,
            "cause": work.round.begun["cause"],
            "begun_at": work.round.begun_at,
            "ended_at": ended.at,
            "release": work.round.bundle,
            "verdict": work.round.verdict,
            "live": self.registry.live().bundle,
            **ended.document,
        }
        if self.notify is None:
            return {"delivered": None}
        try:
            self.notify(f"round-{work.round.number}-{round(work.round.begun_at)}", document)
        except BurnishError as error:
            return {"delivered": False, "error": str(error)}
        return {"delivered": True}

    def _start_job(self, work: RoundWork) -> str:
        """Start or resume the round's job; one that runs, since a server before, is left to run."""
        begun, job = work.round.begun, work.round.begun.get("job")
        snapshot = work.round.snapshot
        assert snapshot is not None, "the stage before froze one"
        if job is not None:
            if self.jobs.get(job).state not in ("running", "done"):
                self.jobs.resume(job)
            return str(job)
        for running in self.jobs.list():
            same = (running.state, running.snapshot) == ("running", snapshot)
            if same and self.jobs.recipe(running.id) == begun["recipe"]:
                return running.id
        return self.jobs.start(
            base_name=self.base.name,
            base_digest=self.base.digest,
            snapshot=snapshot,
            recipe=recipe_from_dict(begun["recipe"]),
            recipe_origins=dict(begun["origins"]),
        )

    def _pause_reason(self, work: RoundWork, seconds_left: float) -> str | None:
        """The reason to stop the job for now; None where it may run. It goes on later."""
        if work.round.begun.get("forced"):
            return None
        if self.timetable.quiet_until(self.now()) is not None:
            return QUIET_NOW
        return USED_UP if work.seconds >= seconds_left else None

    def _is_judged(self, bundle: str) -> bool:
        """Return whether a release has a verdict that still holds, or is live."""
        live = self.registry.live().bundle
        known = self.registry.record().releases.get(bundle)
        return known is not None and (bundle == live or known.report.get("incumbent", live) == live)


def _trained(round_: Round) -> tuple[str, str]:
    """The bundle of a round that has trained, and the snapshot that it was trained on."""
    assert round_.bundle is not None, "the stage before made one"
    assert round_.snapshot is not None, "and froze what it was trained on"
    return round_.bundle, round_.snapshot
