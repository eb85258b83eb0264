"""The story of a release, from the votes it learnt from to who made it live, as lines. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from deploy.releases.events import (
    Activated,
    CanaryFigures,
    CanaryStarted,
    Judged,
    LiveChanged,
    Promoted,
    Registered,
    ReleaseEvent,
    Retired,
    Tainted,
    document_of,
    name_of,
)
from engine.storage import short_id
from engine.units import gib, local_minute

# What people did, by the "kind/source" under which a snapshot counts its examples
STATEMENT_NAMES = {
    "pairs/comparison": "pairs of answers that were compared",
    "pairs/votes": "pairs of opposite votes",
    "pairs/correction": "pairs of a correction and what it corrects",
    "demonstrations/correction": "corrections as demonstrations",
    "demonstrations/vote": "liked answers as demonstrations",
    "unpaired/vote": "lone votes",
    "unpaired/comparison": "judgements of a comparison without a counterpart",
}
NameActor = Callable[[str], str]  # the name of an account, where there is one


def tell_story(
    events: Iterable[ReleaseEvent], release: str, name_actor: NameActor = lambda actor: actor
) -> list[str]:
    """Return the story of a release, a line for each fact, the oldest first.

    `events` are those of `Registry.events(release)`. Times are those of this machine's zone.
    """
    lines: list[str] = []
    for event in events:
        first, *rest = _lines(event, release, name_actor)
        lines.append(f"{local_minute(event.at)}  {first}")
        lines += [f"{'':18}{line}" for line in rest]
    return lines


def event_documents(events: Iterable[ReleaseEvent]) -> list[dict[str, Any]]:
    """Return the events as JSON-ready documents."""
    return [
        {"event": name_of(e), "at": e.at, "bundle": e.bundle, "actor": e.actor, **document_of(e)}
        for e in events
    ]


def _lines(event: ReleaseEvent, release: str, name_actor: NameActor) -> Sequence[str]:
    by = f" by {name_actor(event.actor)}" if event.actor else ""
    if isinstance(event, Registered):
        return list(_made(event))
    if isinstance(event, Judged):
        return list(_judged(event.report))
    if isinstance(event, CanaryStarted):
        return [f"canary begun{by}, on {event.plan['share']:.0%} of new conversations"]
    if isinstance(event, CanaryFigures):
        arms = (f"{arm}: {_figures(figures)}" for arm, figures in event.arms.items())
        return [f"canary: {event.decision}{_because(event.reason)}", *arms]
    if isinstance(event, LiveChanged):
        return [_moved(event, release, by)]
    if isinstance(event, Tainted):
        return [f"tainted: {event.reason}; it is never served again"]
    if isinstance(event, Activated):
        return [f"activated{by}"]
    return [name_of(event)]


def _moved(event: LiveChanged, release: str, by: str) -> str:
    """A change of the pointer, as this release sees it."""
    because = _because(event.reason)
    if isinstance(event, Promoted) and event.bundle == release:
        against = f" against the gate's verdict {event.overridden!r}" if event.overridden else ""
        return f"promoted{by}{against}{because}"
    if event.bundle == release:
        return f"live again{by}, in place of {_short(event.previous)}{because}"
    how = "retired" if isinstance(event, Retired) else "replaced"
    return f"{how}{by}, {_short(event.bundle)} took over{because}"


def _made(event: Registered) -> Iterator[str]:
    yield f"{event.origin}, from {_short(event.parent)}"
    if event.snapshot is not None:
        yield f"snapshot {event.snapshot}"
    if event.people is not None:
        yield f"words or judgements of {event.people} people"
    for source, count in event.sources.items():
        yield f"{count} {STATEMENT_NAMES.get(source, source)}"
    if event.search is not None:
        yield (
            f"search: learning rate {event.search['learning_rate']:g},"
            f" step {event.search['step']} of {event.search['steps']}"
        )
    cost = {"seconds": event.seconds, "tokens": event.tokens}
    paid = [f"{value:g} {unit}" for unit, value in cost.items() if value is not None]
    if event.peak_memory_bytes is not None:
        paid.append(f"{gib(event.peak_memory_bytes)} of memory")
    if paid:
        yield "cost: " + ", ".join(paid)


def _judged(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"judged against {_short(report.get('incumbent'))}: {report.get('verdict')}"
    if report.get("reason"):
        yield str(report["reason"])
    for name, against in (("gain", "the incumbent"), ("gain_on_base", "the base model")):
        if (gain := report.get(name)) and "low" in gain:
            yield (
                f"{gain['estimate']:+.2f} [{gain['low']:+.2f}, {gain['high']:+.2f}] on {against}"
            )
    for guard in report.get("guards", ()):
        if guard["refused"]:
            yield f"guard {guard['name']}: the candidate {guard['fault']}"
    if report.get("evaluation"):
        yield f"evaluation {report['evaluation']}"


def _figures(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in figures.items())


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _short(bundle: str | None) -> str:
    return short_id(bundle) if bundle else "the base model"
