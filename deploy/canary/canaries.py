"""The canaries of one store: start one, look at it, and let it decide.

All there is to know stands in the release record and in what people said, so a canary survives a
restart, several servers may look at it, and what is erased is not counted any more.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from deploy.canary.counting import facts_of, verdicts_of
from deploy.canary.decision import Standing, stand
from deploy.canary.guards import tripped
from deploy.canary.history import derive_canaries
from deploy.canary.plan import (
    DEFAULT_DAYS,
    DEFAULT_SHARE,
    DEFAULT_VOTES,
    KEPT_SECONDS,
    Canary,
    CanaryOutcome,
    CanaryPlan,
)
from deploy.canary.verdicts import within_shares
from deploy.releases.events import LOOP, CanaryDecision, CanaryFigures, CanaryStarted
from deploy.releases.promotion import Releases
from deploy.releases.registry import Registry
from engine.errors import Conflict, InvalidInput
from engine.units import DAY_SECONDS
from feedback_store.storage.database import Database
from feedback_store.view.canary_evidence import END_OF_TIME, read_canary_evidence

SALT_BYTES = 8
OTHER_CANARY = "another canary runs now; look again"
RUNS_ALREADY = "a canary runs already: stop it first"
DECISIONS: dict[CanaryOutcome | None, CanaryDecision] = {
    None: "running",
    "promoted": "promote",
    "rolled back": "roll back",
}


@dataclass(frozen=True, slots=True)
class CanaryOptions:
    """The defaults of a canary's budget and share, and of one person's part in its verdicts."""

    share: float = DEFAULT_SHARE
    votes: int = DEFAULT_VOTES
    days: float = DEFAULT_DAYS
    user_share: float = 0.2
    user_floor: int = 50


@dataclass(frozen=True, slots=True)
class CanaryStatus:
    """A canary with its figures; `reason` says why the decision is as it is, where more than the
    verdicts decides."""

    canary: Canary
    standing: Standing
    reason: str = ""

    @property
    def decision(self) -> CanaryDecision:
        """The action that is due."""
        return "roll back" if self.reason else self.standing.decision

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            **asdict(self.canary),
            **self.standing.as_dict(),
            "decision": self.decision,
            "reason": self.reason,
        }


class Canaries:
    """The canaries of one store. Implements `CanaryStage` of the periodic loop."""

    def __init__(
        self,
        registry: Registry,
        database: Database,
        releases: Callable[[], Releases],
        base_digest: Callable[[], str],
        options: CanaryOptions,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`releases` and `base_digest` are called once they are needed: the base model may have to
        be fetched."""
        self._registry = registry
        self._database = database
        self._releases = releases
        self._base_digest = base_digest
        self._options = options
        self._clock = clock

    # For the loop

    def start(self, release: str) -> None:
        """Begin with a candidate, for the loop, which promotes it itself.

        One that the loop runs with it already goes on; one with an older candidate ends. Raises
        `Conflict` while one runs that a person started, and the errors of `start_by`.
        """
        running = self.running()
        if running is not None and running.actor != LOOP:
            raise Conflict(RUNS_ALREADY)
        if running is None or running.plan.candidate != release:
            self._begin(self._plan(release), LOOP)

    def decision(self) -> CanaryDecision:
        """The outcome by the newest canary's figures, which ends unless it is "running".

        Raises `Conflict` where there was none.
        """
        status = self.look()
        if status is not None and status.decision == "promote" and self.running() is not None:
            self._end(status, "promote", _reason(status.standing), LOOP)
        newest = self.newest()
        if newest is None:
            raise Conflict("no canary was started")
        return DECISIONS.get(newest.outcome, "undecided")

    # For people

    def start_by(self, actor: str, release: str, **more: Any) -> Canary:
        """Begin with a candidate, for a person; `more` are fields of `CanaryPlan`.

        Raises `Conflict` while another canary runs or where the release is tainted, `UnknownId`
        for no release, and `InvalidInput` for values out of range.
        """
        if self.running() is not None:
            raise Conflict(RUNS_ALREADY)
        self._begin(self._plan(release, **more), actor)
        return self._newest()

    def stop(self, actor: str) -> CanaryStatus:
        """End the running canary undecided; raises `Conflict` where none runs."""
        running = self.running()
        if running is None:
            raise Conflict("no canary runs")
        status = self.status(running)
        self._end(status, "undecided", f"stopped by {actor}", actor)
        return status

    def take_back(self, actor: str, candidate: str, reason: str = "") -> CanaryStatus:
        """Roll the candidate back, for a person: nobody gets it any more from the next answer on.

        Raises `Conflict` where no canary runs, or one with another candidate.
        """
        running = self.running()
        if running is None:
            raise Conflict("no canary runs")
        if running.plan.candidate != candidate:
            raise Conflict(OTHER_CANARY)
        status = self.status(running)
        said = f": {reason.strip()}" if reason.strip() else ""
        self._end(status, "roll back", f"taken back by {actor}{said}", actor)
        return status

    def refuse(self, candidate: str, reason: str) -> None:
        """Roll back a candidate that the engine cannot serve."""
        running = self.running()
        if running is not None and running.plan.candidate == candidate:
            self._end(self.status(running), "roll back", f"refused by a server: {reason}", "server")

    def look(self) -> CanaryStatus | None:
        """Look at the running canary and carry out what its figures decide; None where none runs.

        A promotion of the loop's canary is left to the loop, which asks for the `decision`: until
        then, the candidate goes on.
        """
        running = self.running()
        if running is None:
            return None
        status = self.status(running)
        is_loops = status.canary.actor == LOOP
        if status.decision != "running" and not (status.decision == "promote" and is_loops):
            self._carry_out(status)
        return status

    # Queries

    def newest(self) -> Canary | None:
        """The canary that was started last; None where there was none."""
        return next(reversed(self._all()), None)

    def running(self) -> Canary | None:
        """The canary that runs."""
        newest = self.newest()
        return newest if newest is not None and newest.runs else None

    def compared(self) -> str | None:
        """The release that comparisons set beside the live one: the candidate of the canary that
        runs, or else the one that waits for promotion."""
        running = self.running()
        return running.plan.candidate if running else self._releases().waiting()

    def recent(self) -> list[Canary]:
        """The canaries that run or ended within a day and whose candidate may still be served, the
        newest first."""
        since, tainted = self._clock() - KEPT_SECONDS, self._registry.tainted()
        return [
            canary
            for canary in reversed(self._all())
            if canary.plan.candidate not in tainted
            and (canary.ended_at is None or canary.ended_at > since)
        ]

    def status(self, canary: Canary) -> CanaryStatus:
        """Return the figures of a canary: what people said until its end that is still stored."""
        plan, end = canary.plan, canary.ended_at or END_OF_TIME
        evidence = read_canary_evidence(self._database, self._base_digest(), canary.started_at, end)
        verdicts = within_shares(
            verdicts_of(plan, evidence), self._options.user_share, self._options.user_floor
        )
        is_over = self._clock() >= canary.started_at + plan.days * DAY_SECONDS
        standing = stand(plan, verdicts, is_over=is_over)
        return CanaryStatus(canary, standing, tripped(facts_of(plan, evidence)) or "")

    def _all(self) -> list[Canary]:
        return derive_canaries(self._registry.events())

    def _newest(self) -> Canary:
        newest = self.newest()
        assert newest is not None, "it was just started"
        return newest

    def _plan(self, release: str, **more: Any) -> CanaryPlan:
        self._registry.get(release)
        if release in self._registry.tainted():
            raise Conflict("this release is tainted; retrain instead")
        options = self._options
        values = {"share": options.share, "votes": options.votes, "days": options.days, **more}
        live = self._registry.live().bundle
        return CanaryPlan(release, live, secrets.token_hex(SALT_BYTES), **values)

    def _begin(self, plan: CanaryPlan, actor: str) -> None:
        self._registry.append(CanaryStarted(bundle=plan.candidate, actor=actor, plan=asdict(plan)))

    def _carry_out(self, status: CanaryStatus) -> None:
        decision, actor = status.decision, status.canary.actor
        reason = status.reason or _reason(status.standing)
        if decision == "promote":
            try:
                self._releases().promote(
                    status.canary.plan.candidate,
                    reason=f"canary: {reason}",
                    actor=actor,
                    force=True,
                )
            except (Conflict, InvalidInput) as error:  # it cannot be served, or another is live now
                decision, reason = "undecided", str(error)
        self._end(status, decision, reason, actor)

    def _end(self, status: CanaryStatus, decision: CanaryDecision, reason: str, actor: str) -> None:
        arms = {str(arm): dict(asdict(counts)) for arm, counts in status.standing.arms.items()}
        self._registry.append(
            CanaryFigures(
                bundle=status.canary.plan.candidate,
                actor=actor,
                arms=arms,
                decision=decision,
                reason=reason,
            )
        )


def _reason(standing: Standing) -> str:
    """The verdicts of both arms, in words."""
    candidate, live = standing.arms["candidate"], standing.arms["live"]
    return (
        f"{candidate.good} of {candidate.good + candidate.bad} verdicts on the candidate were good,"
        f" {live.good} of {live.good + live.bad} on the live release"
    )
