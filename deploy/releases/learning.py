"""Find the releases that learnt from a statement: the lineage, read forwards.

Statement -> example -> snapshot -> bundle -> when it was live. A release has learnt from a
statement where its snapshot has an example of it on the training side, of a kind that its recipe
trains on. `deploy.erased_lineage` reads the same lineage backwards.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

from deploy.releases.registry import Registry
from engine.errors import UnknownId
from engine.home import Home
from engine.storage import folder_of, list_digests, read_manifest
from feedback_store.privacy.erasure import list_erasures
from feedback_store.snapshots.event_index import SNAPSHOT_FILES, SnapshotEventIndex, SnapshotEvents
from feedback_store.storage.database import Database
from tuning.recipe import METHODS
from tuning.rows import ExampleKind


@dataclass(frozen=True, slots=True)
class LearntBy:
    """A release that learnt from a statement; `live_at` is when it first became live, if ever."""

    bundle: str
    live_at: float | None
    is_live: bool


@dataclass(frozen=True, slots=True)
class Lineage:
    """The way of a statement: the first snapshot with an example of it, and the releases."""

    snapshot: str | None = None
    releases: tuple[LearntBy, ...] = ()  # the oldest first


@dataclass(frozen=True, slots=True)
class _Trained:
    """The snapshot that a bundle was trained on, and the places in it."""

    snapshot: str
    places: frozenset[str]


class Learning:
    """The lineage of statements over one home."""

    def __init__(self, home: Home, database: Database, registry: Registry) -> None:
        self._bundles = home.bundles
        self._frozen = SnapshotEventIndex(home.snapshots)
        self._database = database
        self._registry = registry
        self._trained: dict[str, _Trained] = {}
        self._lock = threading.Lock()

    def of(self, event_ids: Collection[int]) -> dict[int, Lineage]:
        """The lineage of each of some statements, by the ids of their events."""
        snapshots = self._frozen.snapshots()
        releases = self._releases({each.digest: each for each in snapshots})
        return {event_id: _lineage(event_id, snapshots, releases) for event_id in event_ids}

    def _releases(
        self, snapshots: Mapping[str, SnapshotEvents]
    ) -> list[tuple[LearntBy, SnapshotEvents, frozenset[str]]]:
        """Each release whose snapshot is known, the oldest first, with what it was trained on."""
        live, first_live = self._registry.live().bundle, {}
        for change in self._registry.history():  # the newest first
            if change.bundle is not None:
                first_live[change.bundle] = change.at
        successors: dict[str, str | None] = {}
        for erasure in list_erasures(self._database):
            successors |= erasure.receipt["snapshots"]
        trained = self._read_bundles()
        found = []
        for release in reversed(self._registry.list()):
            if (about := trained.get(release.bundle)) is None:
                continue
            snapshot: str | None = about.snapshot
            while snapshot is not None and snapshot not in snapshots:
                snapshot = successors.get(snapshot)
            if snapshot is not None:
                bundle = release.bundle
                by = LearntBy(bundle, first_live.get(bundle), bundle == live)
                found.append((by, snapshots[snapshot], about.places))
        return found

    def _read_bundles(self) -> dict[str, _Trained]:
        with self._lock:
            known, self._trained = self._trained, {}
            for bundle in list_digests(self._bundles):
                with suppress(UnknownId):
                    self._trained[bundle] = known.get(bundle) or self._read(bundle)
            return self._trained

    def _read(self, bundle: str) -> _Trained:
        manifest = read_manifest(folder_of(self._bundles, bundle))
        kinds = kinds_trained_on(manifest.get("recipe", {}))
        return _Trained(str(manifest.get("snapshot")), frozenset(f"train/{k}" for k in kinds))


def kinds_trained_on(recipe: Mapping[str, Any]) -> frozenset[ExampleKind]:
    """The kinds of examples that a bundle's recipe, perhaps an old one, trains on."""
    kinds: set[ExampleKind] = set()
    for name, method in METHODS.items():
        known = {each.name for each in fields(method)}  # type: ignore[arg-type]
        values = {key: value for key, value in recipe.get(name, {}).items() if key in known}
        if (configured := method(**values)).epochs > 0:
            kinds |= configured.example_kinds
    return frozenset(kinds)


def _lineage(
    event_id: int,
    snapshots: Collection[SnapshotEvents],
    releases: Collection[tuple[LearntBy, SnapshotEvents, frozenset[str]]],
) -> Lineage:
    first = next((each.digest for each in snapshots if each.holds(event_id, SNAPSHOT_FILES)), None)
    if first is None:
        return Lineage()
    learnt = (by for by, snapshot, places in releases if snapshot.holds(event_id, places))
    return Lineage(first, tuple(learnt))
