"""What an operator reads of a release: its story, and whether it is getting better."""

from __future__ import annotations

from typing import Any

from deploy.releases.events import CanaryFigures, Registered
from deploy.releases.registry import Registry
from deploy.releases.story import event_documents, tell_story
from deploy.releases.trend import trend_of
from feedback_store.view.ratings import DayRatings
from tuning.evaluation.statistics import Interval

A, B = (f"sha256:{letter * 64}" for letter in "ab")
GAIN = {"estimate": 0.2, "low": 0.1, "high": 0.3}
REPORT: dict[str, Any] = {
    "verdict": "better",
    "reason": "gain +0.20 [+0.10, +0.30] lies above 0",
    "incumbent": None,
    "gain": GAIN,
    "gain_on_base": {"estimate": 0.25, "low": 0.15, "high": 0.35},
    "guards": [],
    "evaluation": "sha256:e",
}


def live_through(registry: Registry) -> None:
    """A is made, judged, tried in a canary and promoted by ann; then B takes its place."""
    registry.register(
        Registered(
            bundle=A,
            snapshot="sha256:s",
            sources={"pairs/comparison": 12, "unpaired/vote": 40},
            people=3,
            search={"learning_rate": 1e-4, "step": 12, "steps": 24},
            seconds=90.5,
            tokens=4000,
        )
    )
    registry.add(A, REPORT)
    arms = {"live": {"up": 20, "down": 20}, "candidate": {"up": 30, "down": 10}}
    registry.append(CanaryFigures(bundle=A, arms=arms, decision="promote"))
    registry.promote(A, registry.live(), "people like it", actor="an id")
    registry.add(B, {"verdict": "not better"})
    registry.promote(B, registry.live(), "I know", actor="command line", overridden="not better")
    registry.taint([B], "forgotten")


def test_the_story_goes_from_the_votes_to_who_promoted_it_and_why(registry: Registry) -> None:
    live_through(registry)
    lines = tell_story(registry.events(A), A, lambda actor: {"an id": "ann"}.get(actor, actor))
    assert [line[18:] for line in lines] == [
        "trained, from the base model",
        "snapshot sha256:s",
        "words or judgements of 3 people",
        "12 pairs of answers that were compared",
        "40 lone votes",
        "search: learning rate 0.0001, step 12 of 24",
        "cost: 90.5 seconds, 4000 tokens",
        "judged against the base model: better",
        "gain +0.20 [+0.10, +0.30] lies above 0",
        "+0.20 [+0.10, +0.30] on the incumbent",
        "+0.25 [+0.15, +0.35] on the base model",
        "evaluation sha256:e",
        "canary: promote",
        "live: up 20, down 20",
        "candidate: up 30, down 10",
        "promoted by ann: people like it",
        "replaced by command line, " + "b" * 12 + " took over: I know",
        "live again, in place of " + "b" * 12 + ": forgotten",
    ]
    told = " ".join(tell_story(registry.events(B), B))
    assert "promoted by command line against the gate's verdict 'not better': I know" in told
    assert "tainted: forgotten" in told
    assert event_documents(registry.events(A))[0]["people"] == 3


def test_the_trend_has_each_release_against_the_one_before_and_the_base(registry: Registry) -> None:
    live_through(registry)
    thumbs = [DayRatings(None, "2026-11-29", 3, 1), DayRatings(A, "2026-11-30", 4, 0)]
    trend = trend_of(registry.record(), registry.live().bundle, thumbs)
    first, second = trend.releases
    assert (first.number, first.release, first.is_live, first.seconds) == (1, A, True, 90.5)
    assert (first.gain, first.gain_on_base) == (Interval(0.2, 0.1, 0.3), Interval(0.25, 0.15, 0.35))
    assert (second.number, second.verdict, second.tainted, second.gain) == (
        2,
        "not better",
        True,
        None,
    )
    assert trend.as_dict()["thumbs"][1] == {"adapter": A, "day": "2026-11-30", "up": 4, "down": 0}
