"""An index of the statements that the examples of snapshots rest on.

A snapshot never changes, so it is read once, and of each example no more is kept than the numbers
of the events that it rests on.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from engine.errors import UnknownId
from engine.storage import folder_of, list_digests, read_manifest
from feedback_store.examples.split import SPLITS
from feedback_store.snapshots.snapshot import READERS

SNAPSHOT_FILES = tuple(f"{split}/{kind}" for split in SPLITS for kind in READERS)
# The key in a row of canonical JSON, which has another key before it; within a text its quotation
# marks would have backslashes. Reading a hundred thousand rows as JSON takes seconds
EVENT_IDS = b',"event_ids":['


class SnapshotEvents:
    """A snapshot's events, by `split/kind`; read when one is asked for that it may hold."""

    def __init__(self, folder: Path, digest: str, last_event: int) -> None:
        self.digest = digest
        self.last_event = last_event  # the newest that it could know
        self._folder = folder

    def holds(self, event_id: int, places: Iterable[str]) -> bool:
        """Return whether an example that rests on an event is in one of some places."""
        if event_id > self.last_event:
            return False
        return any(_has(self._events[place], event_id) for place in places)

    @cached_property
    def _events(self) -> dict[str, array[int]]:
        """The numbers at each place, in order; none where the snapshot cannot be read."""
        try:
            return {place: _read(self._folder / f"{place}.jsonl") for place in SNAPSHOT_FILES}
        except (OSError, ValueError):
            return {place: array("q") for place in SNAPSHOT_FILES}


class SnapshotEventIndex:
    """The snapshots under a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, SnapshotEvents] = {}
        self._lock = threading.Lock()

    def snapshots(self) -> list[SnapshotEvents]:
        """The snapshots, the oldest first: in the order of the newest event that each knows."""
        with self._lock:
            known, self._known = self._known, {}
            for digest in list_digests(self._root):
                with suppress(UnknownId, LookupError, ValueError, TypeError):
                    self._known[digest] = known.get(digest) or self._open(digest)
            found = list(self._known.values())
        return sorted(found, key=lambda each: (each.last_event, each.digest))

    def _open(self, digest: str) -> SnapshotEvents:
        folder = folder_of(self._root, digest)
        return SnapshotEvents(folder, digest, int(read_manifest(folder)["last_event"]))


def _read(path: Path) -> array[int]:
    found: set[int] = set()
    with path.open("rb") as file:
        for line in file:
            begin = line.index(EVENT_IDS) + len(EVENT_IDS)
            found.update(map(int, line[begin : line.index(b"]", begin)].split(b",")))
    return array("q", sorted(found))


def _has(ids: array[int], event_id: int) -> bool:
    at = bisect_left(ids, event_id)
    return at < len(ids) and ids[at] == event_id
