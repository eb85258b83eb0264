"""A round of the loop as its events tell it: which stages are done, and what went wrong. Pure.

Events are appended and never changed. A stage is done once its event is there, so a loop that is
started again goes on at the first stage that has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

StageName = Literal["snapshot", "tune", "evaluate", "canary", "promote", "report"]
STAGES: tuple[StageName, ...] = ("snapshot", "tune", "evaluate", "canary", "promote", "report")
# Events beside the stages. `LOOKED` has no round: the evidence was weighed, and no round begun
BEGUN, FAILED, PAUSED, LOOKED, CANARY_BEGUN, ENDED = (
    "begun",
    "failed",
    "paused",
    "looked",
    "canary begun",
    "ended",
)
Outcome = Literal["promoted", "not promoted", "unchanged", "erased", "cancelled", "failed", "waits"]


@dataclass(frozen=True, slots=True)
class LoopEvent:
    """A row of the loop's table; `round` is None where no round was begun."""

    round: int | None
    kind: str
    at: float  # Unix seconds
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Round:
    """A round. `begun` has its cause, its recipe and whether it may promote; see `Loop`."""

    number: int
    begun_at: float
    begun: Mapping[str, Any]
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failures: Sequence[LoopEvent] = ()
    canary_begun: bool = False
    ended: LoopEvent | None = None  # its outcome and reason; reported or not

    @property
    def snapshot(self) -> str | None:
        """The snapshot that it trains on, once it is frozen."""
        snapshot: str | None = self.stages.get("snapshot", {}).get("snapshot")
        return snapshot

    @property
    def since_event(self) -> int:
        """The newest statement that its snapshot leaves out as outdated; 0: it leaves out none."""
        return int(self.stages.get("snapshot", {}).get("since_event", 0))

    @property
    def bundle(self) -> str | None:
        """The bundle that it trained, once it has."""
        bundle: str | None = self.stages.get("tune", {}).get("bundle")
        return bundle

    @property
    def verdict(self) -> str | None:
        """The gate's verdict on the bundle, once it is judged."""
        verdict: str | None = self.stages.get("evaluate", {}).get("verdict")
        return verdict

    @property
    def may_go_live(self) -> bool:
        """Return whether the gate found the bundle better, in a round that promotes."""
        return bool(self.begun["promotes"]) and self.verdict == "better"

    @property
    def next_stage(self) -> StageName | None:
        """The first stage that is not done; None after the last."""
        return next((stage for stage in STAGES if stage not in self.stages), None)

    @property
    def finished(self) -> bool:
        """Return whether it has reported."""
        return "report" in self.stages

    @property
    def summary(self) -> str:
        """A line with its outcome, or with its stage."""
        if self.ended is not None:
            return f"{self.ended.document['outcome']} ({self.ended.document['reason']})"
        failed = f", after {len(self.failures)} failed attempts" if self.failures else ""
        return f"at its stage {self.next_stage}{failed}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form, without the recipe."""
        begun = {key: self.begun.get(key) for key in ("cause", "actor", "forced", "promotes")}
        return {
            "round": self.number,
            "begun_at": self.begun_at,
            **begun,
            "stages": {name: dict(document) for name, document in self.stages.items()},
            "next_stage": self.next_stage,
            "failures": [{"at": each.at, **each.document} for each in self.failures],
            "outcome": self.ended.document["outcome"] if self.ended else None,
            "reason": self.ended.document["reason"] if self.ended else None,
        }


@dataclass(frozen=True, slots=True)
class LoopHistory:
    """All rounds, the oldest first; when the evidence was last looked at; the seconds worked."""

    rounds: Sequence[Round] = ()
    looked_at: float | None = None
    worked: Sequence[tuple[float, float]] = ()  # (when it ended, seconds)

    @property
    def unfinished(self) -> Round | None:
        """The round that goes on, if any; there is at most one."""
        return next((each for each in reversed(self.rounds) if not each.finished), None)

    @property
    def failed_in_a_row(self) -> Sequence[Round]:
        """The newest rounds, as far back as all of them failed."""
        found: list[Round] = []
        for each in reversed(self.rounds):
            if each.ended is None or each.ended.document["outcome"] != "failed":
                break
            found.append(each)
        return found


def history_of(events: Iterable[LoopEvent]) -> LoopHistory:
    """Derive all rounds from all events, the oldest first."""
    rounds: dict[int, Round] = {}
    looked_at: float | None = None
    worked: list[tuple[float, float]] = []
    for event in events:
        if seconds := event.document.get("seconds"):
            worked.append((event.at, seconds))
        if event.kind in (LOOKED, BEGUN):
            looked_at = event.at
        if event.round is None:
            continue
        if event.kind == BEGUN:
            rounds[event.round] = Round(event.round, event.at, event.document)
        else:
            rounds[event.round] = _after(rounds[event.round], event)
    return LoopHistory(tuple(rounds.values()), looked_at, tuple(worked))


def _after(round_: Round, event: LoopEvent) -> Round:
    if event.kind in STAGES:
        return replace(round_, stages={**round_.stages, event.kind: event.document})
    if event.kind == FAILED:
        return replace(round_, failures=(*round_.failures, event))
    if event.kind == CANARY_BEGUN:
        return replace(round_, canary_begun=True)
    return replace(round_, ended=event) if event.kind == ENDED else round_
