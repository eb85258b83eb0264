"""The events of the release record: what happened to a release, who did it, when and why.

They are appended and never changed; the state of every release is derived from them
(`deploy.releases.record`). An event names accounts, snapshots and bundles by their ids and holds
counts, so there is nothing of a forgotten person in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal

LOOP = "loop"  # the actor of what the periodic loop does
CanaryDecision = Literal["promote", "roll back", "undecided", "running"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseEvent:
    """Something that happened to a release, or to the base model (None).

    `actor` is the id of an account, or names what acted: the loop, the command line, the console,
    "server ID". `at` is in Unix seconds.
    """

    bundle: str | None
    actor: str = ""
    at: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered(ReleaseEvent):
    """A bundle became a release: how it was made, and what that cost."""

    origin: str = "trained"
    parent: str | None = None  # the bundle that training started from; None is the base model
    snapshot: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] | None = None  # the learning rate and step that the search chose
    sources: Mapping[str, int] = field(default_factory=dict)  # examples by "kind/source"
    people: int | None = None  # whose words or judgements are among the examples
    seconds: float | None = None  # of training
    tokens: float | None = None  # trained on
    peak_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged(ReleaseEvent):
    """The gate's report on a release; `report["evaluation"]` is the evidence's digest."""

    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveChanged(ReleaseEvent):
    """The pointer moved to `bundle` from `previous`; every move has a generation of its own."""

    generation: int
    previous: str | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted(LiveChanged):
    """A release was made live; `overridden` is the gate's verdict against which that was done."""

    overridden: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack(LiveChanged):
    """The release before became live again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired(LiveChanged):
    """The live release was tainted, and its newest untainted ancestor took over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tainted(ReleaseEvent):
    """A release learnt from what was erased since, and is never served again."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Activated(ReleaseEvent):
    """A server began to serve a release."""

    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryStarted(ReleaseEvent):
    """A release was given a share of conversations; `plan` has the fields of its `CanaryPlan`."""

    plan: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryFigures(ReleaseEvent):
    """The figures of a canary by arm ("live", "candidate"), and what its test decided by them."""

    arms: Mapping[str, Mapping[str, float]]
    decision: CanaryDecision
    reason: str = ""


EVENT_NAMES: Mapping[type[ReleaseEvent], str] = MappingProxyType(
    {
        Registered: "registered",
        Judged: "judged",
        Promoted: "promote",
        RolledBack: "rollback",
        Retired: "retire",
        Tainted: "tainted",
        Activated: "activated",
        CanaryStarted: "canary start",
        CanaryFigures: "canary",
    }
)
_TYPES = {name: kind for kind, name in EVENT_NAMES.items()}
_COLUMNS = ("bundle", "actor", "at")


def name_of(event: ReleaseEvent) -> str:
    """The name of an event's kind, as the table has it."""
    return EVENT_NAMES[type(event)]


def document_of(event: ReleaseEvent) -> dict[str, Any]:
    """The fields of an event, in plain values, that have no column of their own."""
    return {name: value for name, value in asdict(event).items() if name not in _COLUMNS}


def event_of(
    kind: str, bundle: str | None, actor: str, at: float, document: Mapping[str, Any]
) -> ReleaseEvent | None:
    """The event of a row; None for a kind that this version does not know."""
    found = _TYPES.get(kind)
    if found is None:
        return None
    known = {each.name for each in fields(found)} - set(_COLUMNS)
    values = {name: value for name, value in document.items() if name in known}
    return found(bundle=bundle, actor=actor, at=at, **values)
