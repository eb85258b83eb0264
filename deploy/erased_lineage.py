"""The lineage of erased data, read backwards: which artefacts of a home learnt from it.

Bundle -> the bundle that it was trained from -> snapshot or set of AI labels -> statement.
`deploy.releases.learning` reads the same lineage forwards. Deletes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from engine.adapters.bundle import origin_of
from engine.errors import UnknownId
from engine.home import Home
from engine.storage import folder_of, list_digests, read_manifest
from feedback_store.privacy.erasure import Erasure
from tuning.ai_labels import labels_of
from tuning.start_adapter import start_of


class ErasedLineage:
    """The artefacts that held what one erasure covers, or that learnt from it.

    Whatever cannot be traced counts as such: a snapshot or a set of labels that is gone was
    rewritten for some erasure.
    """

    def __init__(self, home: Home, erasure: Erasure, erasures: Iterable[Erasure]) -> None:
        """`erasures` are all that were ever made; the snapshots and labels are those of now."""
        self._home = home
        self._erasure = erasure
        self._replaced: dict[str, str | None] = {}  # by a snapshot: what stands for it now
        self._people: dict[str, list[str]] = {}  # by a snapshot: whom it was rewritten for
        for each in erasures:
            self._replaced |= each.receipt["snapshots"]
            self._people |= each.people
        self._snapshots = set(list_digests(home.snapshots))
        self._labels = set(list_digests(home.ai_labels))

    def bundles(self) -> set[str]:
        """The bundles of the home that learnt from erased data."""
        return {bundle for bundle in list_digests(self._home.bundles) if self._learnt(bundle)}

    def reward_models(self) -> list[str]:
        """The reward models of the home that learnt from erased data."""
        root = self._home.rewards
        return [
            digest
            for digest in list_digests(root)
            if self._held(str(read_manifest(folder_of(root, digest))["snapshot"]), None)
        ]

    def run_learnt(self, snapshot: str, recipe: Mapping[str, Any]) -> bool:
        """Return whether a run on a snapshot, with a recipe in plain values, reads erased data."""
        start = start_of(recipe)
        return self._held(snapshot, labels_of(recipe)) or (
            start is not None and self._learnt(start)
        )

    def _learnt(self, bundle: str) -> bool:
        """Return whether a bundle, or the one that it was trained from, learnt from erased data.

        One that does not say on what it was trained counts as such, and one whose start is gone.
        An imported adapter has seen nothing of this home.
        """
        try:
            manifest = read_manifest(folder_of(self._home.bundles, bundle))
        except UnknownId:
            return True
        if origin_of(manifest) == "imported":
            return False
        return self.run_learnt(str(manifest.get("snapshot")), manifest.get("recipe", {}))

    def _held(self, snapshot: str, labels: str | None) -> bool:
        """Return whether a snapshot, or the AI labels used with it, held erased data."""
        if labels is not None and labels not in self._labels:
            return True
        now: str | None = snapshot
        while now is not None and now not in self._snapshots:
            rewritten_now = now in self._erasure.receipt["snapshots"]
            if rewritten_now or self._erasure.person in self._people.get(now, ()):
                return True
            now = self._replaced.get(now)
        return now is None
