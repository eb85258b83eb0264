"""The making of a release, read from its bundle, snapshot and job while they are there.

The facts go into the release record, which stays when an erasure deletes what they were read from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from deploy.releases.events import Registered
from engine.adapters.bundle import origin_of
from engine.home import Home
from engine.storage import folder_of, list_digests, read_manifest
from feedback_store.snapshots.snapshot import Split, open_snapshot
from tuning.jobs.events import JobEvent, SearchDone, StepDone
from tuning.jobs.runner import JobRunner
from tuning.start_adapter import start_of


def registration_of(home: Home, jobs: JobRunner, bundle: str) -> Registered:
    """Return the facts about a bundle; those whose source is gone are left out."""
    manifest = read_manifest(folder_of(home.bundles, bundle))
    snapshot, recipe = manifest.get("snapshot"), manifest.get("recipe") or {}
    facts: dict[str, Any] = {}
    if snapshot in list_digests(home.snapshots):
        data = open_snapshot(home.snapshots, snapshot)
        facts |= {
            "sources": dict(data.manifest.get("sources", {})),
            "people": count_people((data.train, data.heldout, data.gold)),
        }
    job = next((job for job in jobs.list() if job.bundle == bundle), None)
    if job is not None:
        facts |= training_cost(jobs.events(job.id))
    return Registered(
        bundle=bundle,
        origin=origin_of(manifest),
        parent=start_of(recipe),
        snapshot=snapshot,
        recipe=recipe,
        **facts,
    )


def count_people(splits: Iterable[Split]) -> int:
    """The number of people whose words or judgements are among the examples."""
    return len(
        {user for split in splits for example in split.examples for user in example.origin.user_ids}
    )


def training_cost(events: Sequence[JobEvent]) -> dict[str, Any]:
    """The search's choice of a run, its seconds and tokens, and its largest memory in bytes.

    A stage that was resumed counts from zero again, so that the spans of one stage are added up:
    a span ends where the next step's seconds are fewer. Steps that a kill undid count as well,
    since they were paid for.
    """
    steps = [event for event in events if isinstance(event, StepDone)]
    search = next((event for event in reversed(events) if isinstance(event, SearchDone)), None)
    cost: dict[str, Any] = {"search": None}
    if search is not None:
        cost["search"] = {k: v for k, v in asdict(search).items() if k != "at"}
    if steps:
        ends = [
            step
            for step, after in zip(steps, [*steps[1:], None], strict=True)
            if after is None or after.stage != step.stage or after.seconds < step.seconds
        ]
        cost["seconds"] = round(sum(step.seconds for step in ends), 1)
        cost["peak_memory_bytes"] = max(step.peak_memory_bytes for step in steps)
        counted = [step.tokens for step in ends if step.tokens is not None]
        cost["tokens"] = sum(counted) if counted else None
    return cost
