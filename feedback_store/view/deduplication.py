"""Among candidates that are alike, and among one user's many: which are trained on.

Knows the table of candidates; the rules themselves are `selection`'s. Of a question that thousands
ask only those are looked at again that follow the first change, since each is compared with
earlier ones alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from sqlalchemy import Connection

from feedback_store.examples.rules import OVER_CAP
from feedback_store.examples.selection import NEIGHBOURS, as_decided, reasons_against
from feedback_store.examples.shares import over_cap, user_cap
from feedback_store.examples.types import KINDS, Example
from feedback_store.records import Decision
from feedback_store.view.candidates import (
    SET_ASIDE,
    Candidate,
    Moves,
    Row,
    about,
    beyond_cap,
    of_users,
    shares,
    topics_of,
)
from feedback_store.view.derivation import Derived

Read = Callable[[Sequence[Candidate]], Mapping[str, Example]]  # the texts of rows, by key


@dataclass(frozen=True, slots=True)
class _Entry:
    """A candidate among those alike. `number` is None for one that is about to be stored."""

    row: Candidate
    number: int | None

    @property
    def order(self) -> tuple[int, str]:
        """In the order in which people spoke."""
        return self.row.first_event, self.row.key


def choose(
    connection: Connection,
    batch: Sequence[str],
    derived: Derived,
    decisions: Mapping[str, Decision],
    read: Read,
) -> tuple[list[Candidate], Moves]:
    """Of newly derived conversations: the rows to store, and what others alike become.

    `batch` names the conversations; the table still has what they gave before.
    """
    own = set(batch)
    fresh = [row for row in derived.rows if row.kind != SET_ASIDE]
    topics = topics_of(connection, batch) | {row.topic for row in fresh}
    before: dict[tuple[str, bytes, int], list[_Entry]] = defaultdict(list)
    after: dict[tuple[str, bytes, int], list[_Entry]] = defaultdict(list)
    for number, row in about(connection, topics):
        group = row.kind, row.topic, row.label
        before[group].append(_Entry(row, number))
        if row.conversation_id not in own:
            after[group].append(_Entry(row, number))
    for row in fresh:
        after[row.kind, row.topic, row.label].append(_Entry(row, None))
    placed: dict[str, Candidate] = {}
    moves: Moves = {}
    groups = [
        _Alike(before[group], entries, decisions)
        for group, entries in after.items()
        if len(entries) > 1 or before[group] or entries[0].row.key in decisions
    ]
    known = {**derived.found, **read([row for group in groups for row in group.to_read])}
    for alike in groups:
        for entry, new in alike.placed(known):
            if entry.number is None:
                placed[new.key] = new
            elif new != entry.row:
                moves[entry.number] = entry.row, new
    return [placed.get(row.key, row) for row in derived.rows], moves


class _Alike:
    """The candidates of one kind, topic and label, before and after a change."""

    def __init__(
        self,
        before: Sequence[_Entry],
        after: Sequence[_Entry],
        decisions: Mapping[str, Decision],
    ) -> None:
        self._was = {entry.order: entry.row for entry in before}
        self._after = sorted(after, key=lambda entry: entry.order)
        self._decisions = decisions
        # The same order means the same statement about the same answers, so the same texts
        changed = self._was.keys() ^ {entry.order for entry in after}
        changed |= {entry.order for entry in after if entry.row.key in decisions}
        self._earlier: list[_Entry] = []  # kept, and compared with
        self._later: list[_Entry] = []  # to be looked at again
        if changed:
            first = min(changed)
            kept = [e for e in self._after if e.order < first and _is_kept(self._was[e.order])]
            self._earlier = kept[-NEIGHBOURS:]
            self._later = [entry for entry in self._after if entry.order >= first]

    @property
    def to_read(self) -> list[Candidate]:
        """Stored rows whose texts must be known."""
        looked_at = (*self._earlier, *self._later)
        return [entry.row for entry in looked_at if entry.number is not None]

    def placed(self, known: Mapping[str, Row]) -> Iterator[tuple[_Entry, Candidate]]:
        """Entries with their rows as they are to be; the last word on an entry counts.

        `known` has the texts, by key. A row without has changed since, and is read again soon.
        """
        for entry in self._after:
            if entry.number is None and entry.order in self._was:
                yield entry, _as_before(entry.row, self._was[entry.order])
        earlier, later = (
            [e for e in some if e.row.key in known] for some in (self._earlier, self._later)
        )
        texts = [
            as_decided(cast(Example, known[e.row.key]), self._decisions.get(e.row.key))
            for e in (*earlier, *later)
        ]
        reasons = reasons_against(texts, self._decisions)[len(earlier) :]
        for entry, reason in zip(later, reasons, strict=True):
            yield entry, _placed(entry.row, reason)


def _as_before(row: Candidate, was: Candidate) -> Candidate:
    if was.place == SET_ASIDE:
        return replace(row, place=SET_ASIDE, reason=was.reason)
    return row


def _is_kept(row: Candidate) -> bool:
    """Whether it is trained on as far as duplicates go."""
    return row.place != SET_ASIDE or row.reason == OVER_CAP


def _placed(row: Candidate, reason: str | None) -> Candidate:
    if reason is not None:
        return replace(row, place=SET_ASIDE, reason=reason)
    if row.reason == OVER_CAP:
        return row  # that is for `beyond_share` to say
    return replace(row, place=row.kind, reason=row.source)


def beyond_share(connection: Connection, *, share: float, floor: int) -> Moves:
    """What becomes of examples, now that some users have more or fewer than before."""
    moves: Moves = {}
    for kind in KINDS:
        by_group = shares(connection, kind)
        counts: Counter[str] = Counter()
        for group, count in by_group.items():
            for user in _members(group):
                counts[user] += count
        cap = user_cap(sum(by_group.values()), counts, share=share, floor=floor)
        over = {user for user, count in counts.items() if cap is not None and count > cap}
        groups = [g for g in by_group if not over.isdisjoint(_members(g))] if over else []
        rows = of_users(connection, kind, groups)
        verdicts = over_cap([_members(row.users) for _, row in rows], cap)
        now_over = {number for (number, _), out in zip(rows, verdicts, strict=True) if out}
        was_over = dict(beyond_cap(connection, kind))
        for number, row in rows:
            if number in now_over and number not in was_over:
                moves[number] = row, replace(row, place=SET_ASIDE, reason=OVER_CAP)
        for number, row in was_over.items():
            if number not in now_over:
                moves[number] = row, replace(row, place=kind, reason=row.source)
    return moves


def _members(group: str) -> Sequence[str]:
    """The users of a row."""
    return group.split("\n") if group else ()
