"""The periodic loop: enough evidence, falling ratings or the calendar -> snapshot -> tune ->
evaluate and gate -> canary -> promote or not -> report.

`_carry_out` is that line, one call after the other. A round is a series of events
(`deploy.rounds`): each stage is recorded when it is done and never done again, so a loop that is
killed at any moment goes on where it was, in whatever process. One loop at a time works on a store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deploy.gate.thresholds import Thresholds
from deploy.gate.verdict import GateReport, gate_report_of
from deploy.heartbeats import SILENT_SECONDS
from deploy.releases.events import LOOP
from deploy.releases.learning import kinds_trained_on
from deploy.releases.promotion import Releases
from deploy.releases.registry import Registry
from deploy.rounds.canary_stage import CanaryStage
from deploy.rounds.evidence import EvidenceWatch
from deploy.rounds.judging import Judging
from deploy.rounds.plan import LoopPlan, loop_plan
from deploy.rounds.round import Outcome, Round
from deploy.rounds.stages import ERASED, Notify, Stages
from deploy.rounds.store import RoundStore
from deploy.rounds.timetable import Timetable
from deploy.rounds.trigger import ALL_KINDS, EVIDENCE_WEIGHTS, LoopStatus
from deploy.rounds.work import RoundEnded, RoundWork, StageDocument, Unfinished
from engine.adapters.slots import AdapterSlots
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.request import Engine
from feedback_store.records import Rating
from feedback_store.view.training_set import TrainingSet
from tuning.jobs.events import Report
from tuning.jobs.runner import JobRunner
from tuning.recipe import Recipe
from tuning.rows import ExampleKind


@dataclass(frozen=True, slots=True)
class LoopResult:
    """The result of a round, or where it stands: `outcome` is "waits" then."""

    ran: bool
    reason: str
    snapshot: str | None = None
    bundle: str | None = None
    report: GateReport | None = None
    promoted: bool = False
    since_event: int = 0  # the statements up to here were left out, since wishes have changed
    outcome: Outcome | None = None
    round: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RoundRequest:
    """The values with which a round begins. `forced`: somebody asked for it, whatever the evidence.

    Such a round heeds neither quiet hours nor minutes a day. `job` is a tuning job that is there
    already, to be judged at its end.
    """

    recipe: Recipe
    origins: Mapping[str, str]
    forced: bool = False
    promotes: bool = True
    actor: str = LOOP
    job: str | None = None

    def as_document(self, cause: str, reason: str) -> dict[str, Any]:
        """The document of the round's first event."""
        values = {"recipe": self.recipe.as_dict(), "origins": dict(self.origins)}
        return {**asdict(self), **values, "cause": cause, "reason": reason}


class Loop:
    """The loop over one home and one engine."""

    def __init__(
        self,
        *,
        home: Home,
        base: BaseModel,
        training_set: TrainingSet,
        take_snapshot: Callable[[], str],
        registry: Registry,
        jobs: JobRunner,
        rounds: RoundStore,
        min_new_pairs: int,
        weights: Mapping[str, float] = EVIDENCE_WEIGHTS,
        read_ratings: Callable[[str | None], Sequence[Rating]] | None = None,
        timetable: Timetable | None = None,
        canary: CanaryStage | None = None,
        notify: Notify | None = None,
        thresholds: Thresholds | None = None,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read_ratings` returns the thumbs of a release; without it nobody watches them.

        Without a `canary` a better candidate goes live at once; without `notify` nobody is told.
        """
        self._registry = registry
        self._jobs = jobs
        self._rounds = rounds
        self._timetable = timetable or Timetable()
        self._now, self._monotonic = now, monotonic
        self._looked_at = now()
        self._evidence = EvidenceWatch(
            home=home,
            training_set=training_set,
            registry=registry,
            jobs=jobs,
            min_new_pairs=min_new_pairs,
            weights=weights,
            read_ratings=read_ratings,
        )
        self.judging = Judging(home, base, registry, jobs, thresholds)
        self._stages = Stages(
            home=home,
            base=base,
            take_snapshot=take_snapshot,
            registry=registry,
            releases=Releases(registry, home.bundles, base),
            jobs=jobs,
            rounds=rounds,
            evidence=self._evidence,
            judging=self.judging,
            timetable=self._timetable,
            canary=canary,
            notify=notify,
            now=now,
        )

    def run(
        self,
        engine: Engine,
        slots: AdapterSlots,
        request: RoundRequest,
        report: Report,
        *,
        patience_seconds: float = 2 * SILENT_SECONDS,
    ) -> LoopResult:
        """Carry out one round, or the rest of the one that was interrupted.

        A forced one trains even without enough new evidence; the gate still decides. Raises
        `Conflict` while another process runs the loop, and the error of a stage that failed: the
        round is tried again then, by the next call or by `tick`.
        """
        with self._rounds.lease.held(patience_seconds):
            if self.unfinished is None:
                status = self.status(kinds_trained_on(asdict(request.recipe)))
                if not status.would_run and not request.forced:
                    return LoopResult(ran=False, reason=status.reason)
                cause = "asked" if request.forced else str(status.cause)
                self._begin(request.as_document(cause, status.reason))
            return self._finish(engine, slots, report)

    def tick(
        self,
        engine: Engine,
        slots: AdapterSlots,
        request: Callable[[], RoundRequest],
        report: Report,
        *,
        enabled: bool,
    ) -> LoopResult | None:
        """Do what is due, as a server does each minute; None if there is nothing to do.

        A round that was interrupted goes on, also where the loop is not `enabled`.
        """
        plan = self.plan(enabled=enabled)
        if plan.action == "wait":
            return None
        if plan.action == "go on":
            with self._rounds.lease.held():
                if self.unfinished is None:
                    return None  # another process has finished it meanwhile
                return self._finish(engine, slots, report)
        self._looked_at = self._now()
        result = self.run(engine, slots, request(), report, patience_seconds=0)
        if not result.ran:
            self._rounds.record_look(result.reason)
        return result

    def plan(self, *, enabled: bool) -> LoopPlan:
        """Return the action that `tick` would take now, and the reason."""
        history, now = self._rounds.history(), self._now()
        self._looked_at = min(self._looked_at, now)  # the clock may have been set back
        looks = [at for at in (history.looked_at, self._looked_at) if at is not None and at <= now]
        return loop_plan(history, self._timetable, now=now, looked_at=looks[0], enabled=enabled)

    def status(self, taught: Collection[ExampleKind] = ALL_KINDS) -> LoopStatus:
        """Weigh the evidence: would it start a round, and why?

        `taught` are the kinds of examples that the recipe trains on.
        """
        rounds = self._rounds.history().rounds
        last_end = next((r.ended.at for r in reversed(rounds) if r.ended is not None), None)
        overdue = self._timetable.is_overdue(last_end, self._now())
        return self._evidence.status(taught, overdue=overdue)

    @property
    def unfinished(self) -> Round | None:
        """The round that goes on, if any."""
        return self._rounds.history().unfinished

    def rounds(self) -> Sequence[Round]:
        """All rounds, the newest first."""
        return tuple(reversed(self._rounds.history().rounds))

    # A round

    def _begin(self, document: StageDocument) -> None:
        number = self._rounds.begin(document)
        if (job := document.get("job")) is not None:
            snapshot = self._jobs.get(job).snapshot
            self._rounds.record(number, "snapshot", {"snapshot": snapshot})

    def _finish(self, engine: Engine, slots: AdapterSlots, report: Report) -> LoopResult:
        """Carry out the round that goes on; one whose data was erased begins anew."""
        while True:
            round_ = self.unfinished
            assert round_ is not None, "a round was begun"
            work = RoundWork(self._rounds, round_, self._stages.require_artefacts, self._monotonic)
            result = self._carry_out(work, engine, slots, report)
            if result.outcome != "erased":
                return result
            self._begin({**round_.begun, "job": None})

    def _carry_out(
        self, work: RoundWork, engine: Engine, slots: AdapterSlots, report: Report
    ) -> LoopResult:
        """The algorithm. Each stage is done once, and the first that is missing comes next."""
        stages = self._stages
        try:
            if work.ended is None:
                work.once("snapshot", lambda: stages.freeze(work, engine, slots))
                work.once("tune", lambda: stages.tune(work, report))
                work.once("evaluate", lambda: stages.evaluate(work, engine, slots))
                work.once("canary", lambda: stages.ask_canary(work))
                promotion = work.once("promote", lambda: stages.promote(work))
                outcome: Outcome = "promoted" if promotion["promoted"] else "not promoted"
                work.end(outcome, promotion["reason"])
        except Unfinished as waits:
            if work.stage == "tune":  # the canary is asked each minute
                work.pause(str(waits))
            return self._result(work, "waits", str(waits))
        except RoundEnded as ended:
            erased = stages.is_erased(work.round)  # which cancels its job, too
            work.end("erased" if erased else ended.outcome, ERASED if erased else ended.reason)
        except Exception as error:
            if stages.is_erased(work.round):  # whatever it ran into
                work.end("erased", ERASED)
            else:
                work.fail(error)
                if work.ended is not None:
                    work.once("report", lambda: stages.tell(work))
                raise
        work.once("report", lambda: stages.tell(work))
        assert work.ended is not None, "every way here ends the round"
        return self._result(work, work.ended.document["outcome"], work.ended.document["reason"])

    def _result(self, work: RoundWork, outcome: Outcome, reason: str) -> LoopResult:
        """Return where a round stands, as its events tell."""
        round_ = work.round
        judged = round_.bundle if round_.verdict is not None else None
        report = self._registry.get(judged).report if judged is not None else None
        return LoopResult(
            ran=True,
            reason=reason,
            snapshot=round_.snapshot,
            bundle=round_.bundle,
            report=gate_report_of(report) if report else None,
            promoted=outcome == "promoted",
            since_event=round_.since_event,
            outcome=outcome,
            round=round_.number,
        )
