"""The evidence since the last training: whether it is worth a round, and what of it is outdated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from deploy.releases.registry import Registry
from deploy.rounds.change_point import RatingWatch, watch_ratings
from deploy.rounds.changed_wishes import contradicts, measure_agreement
from deploy.rounds.trigger import ALL_KINDS, EVIDENCE_WEIGHTS, LoopStatus, Sources, weigh_evidence
from engine.adapters.slots import AdapterSlots
from engine.home import Home
from engine.request import Engine
from engine.storage import folder_of, list_digests, read_manifest
from feedback_store.examples.types import TrainingExample
from feedback_store.records import Rating
from feedback_store.snapshots.snapshot import newer_part, open_snapshot
from feedback_store.view.training_set import TrainingSet
from tuning.jobs.runner import JobRunner
from tuning.rows import ExampleKind

Stated = TypeVar("Stated", bound=TrainingExample)


class EvidenceWatch:
    """The evidence of one home, weighed against what was trained on."""

    def __init__(
        self,
        *,
        home: Home,
        training_set: TrainingSet,
        registry: Registry,
        jobs: JobRunner,
        min_new_pairs: int,
        weights: Mapping[str, float] = EVIDENCE_WEIGHTS,
        read_ratings: Callable[[str | None], Sequence[Rating]] | None = None,
    ) -> None:
        """`read_ratings` returns the thumbs of a release; without it nobody watches them."""
        self._home = home
        self._training_set = training_set
        self._registry = registry
        self._jobs = jobs
        self._min_new_pairs = min_new_pairs
        self._weights = weights
        self._read_ratings = read_ratings
        self._watched: tuple[object, RatingWatch | None] = (None, None)

    def status(
        self, taught: Collection[ExampleKind] = ALL_KINDS, *, overdue: bool = False
    ) -> LoopStatus:
        """Weigh the evidence for a round now; `taught` are the kinds that its recipe trains on.

        `overdue`: the last round is longer ago than the operator wants.
        """
        summary = self._training_set.refresh()
        trained = [self._manifest(snapshot) for snapshot in self._trained_snapshots()]
        return weigh_evidence(
            {f"{k}/{source}": n for k in ALL_KINDS for source, n in summary.counts[k].items()},
            [_sources(manifest) for manifest in trained],
            min_new_pairs=self._min_new_pairs,
            job_running=any(job.state == "running" for job in self._jobs.list()),
            weights=self._weights,
            taught=taught,
            ratings=self._watch(
                summary.last_event, max((m.get("last_event", 0) for m in trained), default=0)
            ),
            overdue=overdue,
        )

    def without_outdated(self, engine: Engine, slots: AdapterSlots, snapshot: str) -> str:
        """The snapshot without what was said before people changed their minds, if they did.

        They did where the live release contradicts the statements that came after its training.
        What its own snapshot left out stays out.
        """
        live = self._registry.live().bundle
        trained_on = self._snapshot_of(live)
        if live is None or trained_on is None:
            return snapshot
        data = open_snapshot(self._home.snapshots, snapshot)
        since, until = trained_on.get("since_event", 0), trained_on.get("last_event", 0)
        with slots.hold(live):
            agreement = measure_agreement(
                engine,
                live,
                _after(until, [*data.train.pairs, *data.heldout.pairs]),
                _after(until, [*data.train.unpaired, *data.heldout.unpaired]),
            )
        if contradicts(agreement):
            since = until
        newer = newer_part(self._home.snapshots, data, since) if since else None
        return newer or snapshot

    def _watch(self, last_event: int, acted_on: int) -> RatingWatch | None:
        """Test the ratings of the live release, once for each new event."""
        if self._read_ratings is None:
            return None
        live = self._registry.live().bundle
        if self._watched[0] != (last_event, acted_on, live):
            found = watch_ratings(self._read_ratings(live), acted_on=acted_on)
            self._watched = (last_event, acted_on, live), found
        return self._watched[1]

    def _trained_snapshots(self) -> set[str]:
        """The snapshots that some bundle was trained on, of those that exist."""
        bundles = self._home.bundles
        trained = {
            str(read_manifest(folder_of(bundles, digest))["snapshot"])
            for digest in list_digests(bundles)
        }
        return trained & set(list_digests(self._home.snapshots))

    def _snapshot_of(self, bundle: str | None) -> Mapping[str, Any] | None:
        """The manifest of the snapshot that a bundle was trained on, if it is still there."""
        if bundle is None:
            return None
        snapshot = read_manifest(folder_of(self._home.bundles, bundle)).get("snapshot")
        known = snapshot in list_digests(self._home.snapshots)
        return self._manifest(str(snapshot)) if known else None

    def _manifest(self, snapshot: str) -> Mapping[str, Any]:
        return read_manifest(folder_of(self._home.snapshots, snapshot))


def _sources(manifest: Mapping[str, Any]) -> Sources:
    """The examples by source that a snapshot had, what it left out as outdated among them.

    One of "burnish-snapshot/1" has no such counts.
    """
    sources: Sources = manifest.get("seen", manifest.get("sources", {}))
    return sources


def _after(event: int, examples: Sequence[Stated]) -> list[Stated]:
    """Return the examples that rest on statements after an event alone."""
    return [each for each in examples if each.origin.is_after(event)]
