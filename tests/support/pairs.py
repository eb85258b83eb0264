"""Pairs of people, and snapshots that hold them."""

from __future__ import annotations

from pathlib import Path

from engine.home import Home
from engine.messages import Message
from feedback_store.examples.types import Examples, Origin, Pair, Side, example_id
from feedback_store.snapshots.snapshot import freeze


def row(
    question: str,
    chosen: str,
    rejected: str,
    *,
    rejected_complete: bool = True,
    thoughts: tuple[str, str] = ("", ""),
    conversation: str = "",
) -> Pair:
    """A pair for one question, in a conversation named after it unless it is told."""
    good = Side(chosen, thoughts[0], True, f"good-{question}", "sha256:base", None)
    bad = Side(rejected, thoughts[1], rejected_complete, f"bad-{question}", "sha256:base", None)
    return Pair(
        id=example_id("votes", (good, bad), "votes", ("ann",)),
        prompt=(Message("user", question),),
        chosen=good,
        rejected=bad,
        source="votes",
        origin=Origin(conversation or question, "hash", (1, 2), ("ann",)),
    )


def snapshot_of(home: Path, pairs: int) -> str:
    """Freeze short pairs, each of a conversation of its own; returns the digest."""
    rows = [
        row(f"Say word {i}.", f"Word {i}.", f"No, never {i * 7}.", conversation=f"conversation-{i}")
        for i in range(pairs)
    ]
    return freeze(Home(home).snapshots, Examples(pairs=rows), last_event=2)
