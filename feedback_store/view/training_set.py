"""The training set: `refresh` brings it up to date, everything else is a query.

The definition is `examples.building.build_examples`; this is the same, kept in the database and
updated incrementally. Safe to share between threads and processes. Texts are read from the evidence
for those rows alone that somebody asks for.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, select

from engine.errors import UnknownId
from feedback_store.curation.decisions import Curation
from feedback_store.examples.building import spoken_order
from feedback_store.examples.rules import DEFAULT_RULES, Rules
from feedback_store.examples.types import EXAMPLE_KINDS, Examples, SetAside, TrainingExample
from feedback_store.storage import tables as t
from feedback_store.storage.evidence import EvidenceReader, last_erasure, read_answer_texts
from feedback_store.storage.wanted import Wanted
from feedback_store.view.candidates import (
    SET_ASIDE,
    Item,
    fetch_candidates,
    select_by_status,
    select_candidates,
)
from feedback_store.view.derivation import load_items
from feedback_store.view.refreshing import Refresher
from feedback_store.view.searched_words import (
    event_ids_of,
    in_conversations_with,
    is_wanted,
    matching_events,
)
from feedback_store.view.state import read_state

LOADED_AT_ONCE = 400  # conversations
MAX_SEARCHED = 1_000  # rows whose texts a search looks at


@dataclass(frozen=True, slots=True)
class TrainingSetSummary:
    """The number of examples at a moment: by status (a kind, or "set_aside") and reason."""

    last_event: int
    last_erasure: int
    flip_rate: float | None  # see `trust.Trust`
    counts: Mapping[str, Mapping[str, int]]

    def count(self, status: str) -> int:
        """The number of rows with a status."""
        return sum(self.counts[status].values())


class TrainingSet:
    """The examples that a store's evidence gives."""

    def __init__(
        self, reader: EvidenceReader, curation: Curation, rules: Rules = DEFAULT_RULES
    ) -> None:
        self._reader = reader
        self._database = reader.database
        self._rules = rules
        self._refresher = Refresher(reader, curation, rules)
        self._lock = threading.Lock()

    def refresh(self, *, reestimate: bool = False) -> TrainingSetSummary:
        """Bring the examples up to date, and say how many there are.

        The trust in each user is estimated anew once a tenth of the answers that several people
        judged, on which it rests, was judged otherwise; with `reestimate`, which a snapshot needs,
        at the least change.
        """
        with self._lock:
            self._refresher.refresh(reestimate=reestimate)
            return self.summary()

    def summary(self) -> TrainingSetSummary:
        """The numbers of the last refresh."""
        with self._database.read() as connection:
            return _summary(connection)

    def erased_since(self, summary: TrainingSetSummary) -> bool:
        """Return whether anything was erased since a summary."""
        return self._reader.last_erasure() != summary.last_erasure

    def load_examples(self) -> tuple[TrainingSetSummary, Examples]:
        """Load all examples and all that is set aside, with their texts, as of the last refresh.

        In the order in which people spoke.
        """
        found = Examples()
        with self._database.read() as connection:
            summary = _summary(connection)
            column = t.candidates.c.conversation_id
            known = connection.execute(select(column).distinct().order_by(column)).scalars().all()
            for begin in range(0, len(known), LOADED_AT_ONCE):
                some = known[begin : begin + LOADED_AT_ONCE]
                rows = fetch_candidates(connection, select_candidates(column.in_(some)))
                for status, item in load_items(connection, self._rules, rows):
                    getattr(found, status).append(item)
        for kind in EXAMPLE_KINDS:
            found.of_kind(kind).sort(key=spoken_order)
        found.set_aside.sort(key=lambda item: (item.event_ids[0], item.reason))
        found.flip_rate = summary.flip_rate
        return summary, found

    def page(
        self,
        status: str,
        reason: str | None = None,
        search: Wanted | None = None,
        *,
        first: int = 0,
        count: int = 50,
    ) -> tuple[list[Item], int]:
        """A page of the items of a status, in the order people spoke, and the number of all.

        With a search: those that it finds by their question, their answers or the statements that
        they rest on, of the first thousand rows of conversations in which it finds anything.
        """
        query = select_by_status(status, reason)
        with self._database.read() as connection:
            if search is not None and search.words:
                rows = query.where(in_conversations_with(search)).limit(MAX_SEARCHED)
                items = self._load(connection, rows)
                aside = [item for item in items if isinstance(item, SetAside)]
                texts = read_answer_texts(
                    connection, {a for item in aside for a in item.answer_ids}
                )
                events = {event for item in items for event in event_ids_of(item)}
                matching = matching_events(connection, search, events)
                found = [item for item in items if is_wanted(item, search, texts, matching)]
                return found[first : first + count], len(found)
            found = self._load(connection, query.offset(first).limit(count))
            by_reason = _summary(connection).counts[status]
        return found, sum(by_reason.values()) if reason is None else by_reason.get(reason, 0)

    def find(self, beginning: str) -> TrainingExample:
        """The one example whose id begins like this; raises `UnknownId` for none or several."""
        columns = t.candidates.c
        query = select_candidates(
            columns.status.in_(EXAMPLE_KINDS), columns.key.startswith(beginning, autoescape=True)
        )
        with self._database.read() as connection:
            found = self._load(connection, query.limit(2))
        match found:
            case [item] if not isinstance(item, SetAside):
                return item
        raise UnknownId(f"no one example's id begins with {beginning[:80]!r}")

    def _load(self, connection: Connection, query: Select[Any]) -> list[Item]:
        rows = fetch_candidates(connection, query)
        return [item for _, item in load_items(connection, self._rules, rows)]


def _summary(connection: Connection) -> TrainingSetSummary:
    state = read_state(connection)
    counts = {status: state.counts.get(status, {}) for status in (*EXAMPLE_KINDS, SET_ASIDE)}
    return TrainingSetSummary(state.last_event, last_erasure(connection), state.flip_rate, counts)
