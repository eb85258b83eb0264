"""Duplicates among the candidates of newly derived conversations, and of those stored before.

Knows the table of candidates; the rules themselves are `selection`'s. Of a question that thousands
ask only those are compared again that follow the first change, since each is compared with earlier
ones alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from sqlalchemy import Connection

from feedback_store.examples.rules import OVER_CAP
from feedback_store.examples.selection import NEIGHBOURS, as_decided, reasons_against
from feedback_store.examples.types import TrainingExample
from feedback_store.records import ExampleDecision
from feedback_store.view.candidates import (
    SET_ASIDE,
    Candidate,
    Item,
    StatusChange,
    examples_about,
    topics_of,
)
from feedback_store.view.derivation import Derived

LoadTexts = Callable[
    [Sequence[Candidate]], Mapping[str, TrainingExample]
]  # the examples of rows, by key
Group = tuple[str, bytes, int]  # kind, topic and label: examples of one group may be duplicates


@dataclass(frozen=True, slots=True)
class _Entry:
    """A candidate of a group. `row_id` is None for one that is about to be stored."""

    row: Candidate
    row_id: int | None

    @property
    def order(self) -> tuple[int, str]:
        """Sort key: the order in which people spoke."""
        return self.row.first_event, self.row.key


def deduplicate(
    connection: Connection,
    batch: Sequence[str],
    derived: Derived,
    decisions: Mapping[str, ExampleDecision],
    load_texts: LoadTexts,
) -> tuple[list[Candidate], list[StatusChange]]:
    """Rows to insert for newly derived conversations, and status changes of their duplicates.

    `batch` names the conversations; the table still has what they gave before.
    """
    groups = _changed_groups(connection, batch, derived, decisions)
    rows_to_load = [row for group in groups for row in group.rows_to_load]
    known = {**derived.items, **load_texts(rows_to_load)}
    chosen: dict[str, Candidate] = {}
    changes: list[StatusChange] = []
    for group in groups:
        for entry, row in group.choose(known):
            if entry.row_id is None:
                chosen[row.key] = row
            elif row != entry.row:
                changes.append(StatusChange(entry.row_id, entry.row, row))
    return [chosen.get(row.key, row) for row in derived.rows], changes


def _changed_groups(
    connection: Connection,
    batch: Sequence[str],
    derived: Derived,
    decisions: Mapping[str, ExampleDecision],
) -> list[_Group]:
    """The groups of which a member was added, has gone or was decided about."""
    own = set(batch)
    fresh = [row for row in derived.rows if row.kind != SET_ASIDE]
    topics = topics_of(connection, batch) | {row.topic for row in fresh}
    before: dict[Group, list[_Entry]] = defaultdict(list)
    after: dict[Group, list[_Entry]] = defaultdict(list)
    for row_id, row in examples_about(connection, topics):
        group = row.kind, row.topic, row.label
        before[group].append(_Entry(row, row_id))
        if row.conversation_id not in own:
            after[group].append(_Entry(row, row_id))
    for row in fresh:
        after[row.kind, row.topic, row.label].append(_Entry(row, None))
    return [
        _Group(before[group], entries, decisions)
        for group, entries in after.items()
        if len(entries) > 1 or before[group] or entries[0].row.key in decisions
    ]


class _Group:
    """The candidates of one kind, topic and label, before and after a change."""

    def __init__(
        self,
        before: Sequence[_Entry],
        after: Sequence[_Entry],
        decisions: Mapping[str, ExampleDecision],
    ) -> None:
        self._before = {entry.order: entry.row for entry in before}
        self._after = sorted(after, key=lambda entry: entry.order)
        self._decisions = decisions
        # The same order means the same statement about the same answers, so the same texts
        changed = self._before.keys() ^ {entry.order for entry in after}
        changed |= {entry.order for entry in after if entry.row.key in decisions}
        self._earlier: list[_Entry] = []  # kept, and compared with
        self._later: list[_Entry] = []  # to be compared again
        if changed:
            first = min(changed)
            unchanged = [entry for entry in self._after if entry.order < first]
            kept = [entry for entry in unchanged if self._before[entry.order].is_distinct]
            self._earlier = kept[-NEIGHBOURS:]
            self._later = [entry for entry in self._after if entry.order >= first]

    @property
    def rows_to_load(self) -> list[Candidate]:
        """Stored rows whose texts must be known."""
        compared = (*self._earlier, *self._later)
        return [entry.row for entry in compared if entry.row_id is not None]

    def choose(self, known: Mapping[str, Item]) -> Iterator[tuple[_Entry, Candidate]]:
        """Each entry with its row as it is to be; the last word on an entry counts.

        `known` has the texts, by key. A row without has changed since, and is derived again soon.
        """
        for entry in self._after:
            if entry.row_id is None and entry.order in self._before:
                yield entry, _with_status_of(self._before[entry.order], entry.row)
        earlier, later = (
            [entry for entry in some if entry.row.key in known]
            for some in (self._earlier, self._later)
        )
        examples = [
            as_decided(
                cast(TrainingExample, known[entry.row.key]), self._decisions.get(entry.row.key)
            )
            for entry in (*earlier, *later)
        ]
        reasons = reasons_against(examples, self._decisions)[len(earlier) :]
        for entry, reason in zip(later, reasons, strict=True):
            yield entry, _with_reason(entry.row, reason)


def _with_status_of(before: Candidate, row: Candidate) -> Candidate:
    if before.status == SET_ASIDE:
        return replace(row, status=SET_ASIDE, reason=before.reason)
    return row


def _with_reason(row: Candidate, reason: str | None) -> Candidate:
    if reason is not None:
        return replace(row, status=SET_ASIDE, reason=reason)
    if row.reason == OVER_CAP:
        return row  # that is for `user_shares` to say
    return replace(row, status=row.kind, reason=row.source)
