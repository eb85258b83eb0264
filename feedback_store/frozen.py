"""Which statements a snapshot holds examples of.

A snapshot is read once: it never changes, and of each example no more is kept than the numbers of
the events that it rests on.
"""

from __future__ import annotations

import re
import threading
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import UnknownId
from engine.storage import folder_of, list_digests, read_manifest
from feedback_store.snapshot import READERS
from feedback_store.split import SPLITS

PLACES = tuple(f"{split}/{kind}" for split in SPLITS for kind in READERS)
# The key of a row: a quotation mark within a text has a backslash before it. Reading a hundred
# thousand rows as JSON takes many times as long
EVENT_IDS = re.compile(rb'[{,]"event_ids":\[([\d,]*)\]')


@dataclass(frozen=True, slots=True)
class Frozen:
    """A snapshot's events, by `split/kind`, each in order."""

    digest: str
    last_event: int
    events: Mapping[str, array[int]]

    def holds(self, event_id: int, places: Iterable[str]) -> bool:
        """Whether an example that rests on an event is in one of some places."""
        return any(_has(self.events[place], event_id) for place in places)


class FrozenStatements:
    """The snapshots under a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, Frozen] = {}
        self._lock = threading.Lock()

    def snapshots(self) -> list[Frozen]:
        """All that can be read, the oldest first: in the order of the newest event each knew."""
        with self._lock:
            there = list_digests(self._root)
            self._known = {digest: self._read(digest) for digest in there}
            readable = [each for each in self._known.values() if each.events]
        return sorted(readable, key=lambda each: (each.last_event, each.digest))

    def _read(self, digest: str) -> Frozen:
        """One snapshot; without events where it cannot be read."""
        if digest in self._known:
            return self._known[digest]
        folder = folder_of(self._root, digest)
        try:
            last_event = int(read_manifest(folder)["last_event"])
            events = {place: _events(folder / f"{place}.jsonl") for place in PLACES}
        except (UnknownId, OSError, LookupError, ValueError, TypeError):
            return Frozen(digest, 0, {})
        return Frozen(digest, last_event, events)


def _events(path: Path) -> array[int]:
    found: set[int] = set()
    with path.open("rb") as file:
        for line in file:
            if rests_on := EVENT_IDS.search(line):
                found.update(map(int, filter(None, rests_on[1].split(b","))))
    return array("q", sorted(found))


def _has(ids: array[int], event_id: int) -> bool:
    at = bisect_left(ids, event_id)
    return at < len(ids) and ids[at] == event_id
