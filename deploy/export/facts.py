"""The facts about a release that its export tells: the data it was trained on, its evaluation.

They are counts and figures alone; nothing that people wrote leaves with an export.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import Conflict, UnknownId
from engine.storage import folder_of, read_manifest

if TYPE_CHECKING:
    from deploy.releases.registry import Registry


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """The manifest of the snapshot and the gate's report; None for what is no longer there."""

    snapshot: Mapping[str, Any] | None = None
    report: Mapping[str, Any] | None = None


def read_facts(
    registry: Registry, bundles: Path, snapshots: Path, digest: str | None
) -> ReleaseFacts:
    """The facts about a release, none about the base model.

    Raises `Conflict` for a release that was withdrawn, since somebody whose words it learnt was
    forgotten.
    """
    if digest is None:
        return ReleaseFacts()
    if reason := registry.tainted().get(digest):
        raise Conflict(f"this release was withdrawn and is not exported: {reason}")
    try:
        report: Mapping[str, Any] | None = registry.get(digest).report
    except UnknownId:
        report = None
    return ReleaseFacts(_snapshot(bundles, snapshots, digest), report)


def _snapshot(bundles: Path, snapshots: Path, digest: str) -> Mapping[str, Any] | None:
    try:
        trained_on = read_manifest(folder_of(bundles, digest)).get("snapshot")
        return read_manifest(folder_of(snapshots, str(trained_on)))
    except UnknownId:
        return None
