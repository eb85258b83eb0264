"""All examples of now, kept up to date as people go on judging.

`select` brings the table of candidates up to date: it notes which conversations have news, derives
their candidates anew, and chooses among those that are alike. An hour's feedback costs what an
hour's feedback is, whichever process looks; each step is a short transaction, so that votes go on,
and a process that dies in the middle leaves the rest to the next look. Safe to share between
threads and processes. Texts are read from the evidence for those rows alone that somebody asks for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, select

from engine.errors import UnknownId
from engine.garbage import gc_disabled
from engine.storage import digest_json
from feedback_store.curation.decisions import Curation, decided_since, read_decisions
from feedback_store.examples.rules import DEFAULT_RULES, Rules
from feedback_store.examples.types import KINDS, Example, Examples, SetAside
from feedback_store.records import Decision
from feedback_store.storage import tables as t
from feedback_store.storage.evidence import EvidenceReader, last_erasure, last_event, read_texts
from feedback_store.view.annotator_reliability import judged_otherwise, read_trust, weigh
from feedback_store.view.candidates import (
    SET_ASIDE,
    Candidate,
    Row,
    State,
    clear,
    counts,
    fetch,
    listed,
    mark_stale,
    mentioned,
    move,
    query_candidates,
    read_state,
    recount,
    replace_candidates,
    stale_after,
    unmark_stale,
    write_state,
)
from feedback_store.view.deduplication import beyond_share, choose
from feedback_store.view.derivation import derive, with_texts

# So many conversations are derived in one transaction, for which whoever votes waits
BATCH_CONVERSATIONS = 400
MAX_SEARCHED = 1_000  # rows whose texts a search looks at
DERIVATION = 3  # grows when the same evidence gives other candidates than before


@dataclass(frozen=True, slots=True)
class Selected:
    """What there is at a moment: by place (a kind of example, or "set_aside") and reason."""

    last_event: int
    last_erasure: int
    flip_rate: float | None  # see `trust.Trust`
    counts: Mapping[str, Mapping[str, int]]

    def count(self, place: str) -> int:
        """How many rows a place has."""
        return sum(self.counts[place].values())


class TrainingSet:
    """The examples that a store's evidence gives."""

    def __init__(
        self,
        reader: EvidenceReader,
        curation: Curation,
        rules: Rules = DEFAULT_RULES,
    ) -> None:
        self._reader = reader
        self._database = reader.database
        self._curation = curation
        self._rules = rules
        self._lock = threading.Lock()

    def select(self) -> Selected:
        """Bring the examples up to date.

        The trust in each user is estimated anew once a tenth of the answers that several people
        judged, on which it rests, was judged otherwise; `settle` does it at once.
        """
        return self._look(settle=False)

    def settle(self) -> Selected:
        """The same from a fresh estimate of trust: what is frozen into a snapshot."""
        return self._look(settle=True)

    def holds_still(self, selected: Selected) -> bool:
        """Whether nobody was forgotten since."""
        return self._reader.last_erasure() == selected.last_erasure

    def everything(self) -> tuple[Selected, Examples]:
        """All examples and all that is set aside, with their texts, as of the last look.

        In the order in which people spoke.
        """
        found = Examples()
        with self._database.read() as connection:
            selected = self._selected(connection)
            column = t.candidates.c.conversation_id
            known = connection.execute(select(column).distinct().order_by(column)).scalars().all()
            for begin in range(0, len(known), BATCH_CONVERSATIONS):
                some = known[begin : begin + BATCH_CONVERSATIONS]
                rows = fetch(connection, query_candidates(column.in_(some)))
                for place, row in self._with_texts(connection, rows):
                    getattr(found, place).append(row)
        for examples in (found.pairs, found.unpaired, found.demonstrations):
            examples.sort(key=lambda example: (example.origin.event_ids[0], example.id))
        found.set_aside.sort(key=lambda aside: (aside.event_ids[0], aside.reason))
        found.flip_rate = selected.flip_rate
        return selected, found

    def page(
        self,
        place: str,
        reason: str | None = None,
        search: str = "",
        *,
        first: int = 0,
        count: int = 50,
    ) -> tuple[list[Row], int]:
        """Some rows of a place, in the order in which people spoke, and how many there are.

        With words to search for: those that have them in their question or answers, of the first
        thousand rows of conversations in which they were said.
        """
        query, wanted = listed(place, reason), search.strip().casefold()
        with self._database.read() as connection:
            if wanted:
                rows = fetch(connection, query.where(mentioned(wanted)).limit(MAX_SEARCHED))
                every = [row for _, row in self._with_texts(connection, rows)]
                texts = read_texts(
                    connection, {a for r in every if isinstance(r, SetAside) for a in r.answer_ids}
                )
                found = [row for row in every if _mentions(row, wanted, texts)]
                return found[first : first + count], len(found)
            rows = fetch(connection, query.offset(first).limit(count))
            found = [row for _, row in self._with_texts(connection, rows)]
            by_reason = self._selected(connection).counts[place]
        return found, sum(by_reason.values()) if reason is None else by_reason.get(reason, 0)

    def find(self, beginning: str) -> Example:
        """The one example whose id begins like this; raises `UnknownId` for none or several."""
        columns = t.candidates.c
        query = query_candidates(
            columns.place.in_(KINDS), columns.key.startswith(beginning, autoescape=True)
        )
        with self._database.read() as connection:
            rows = fetch(connection, query.limit(2))
            found = [row for _, row in self._with_texts(connection, rows)]
        match found:
            case [row] if not isinstance(row, SetAside):
                return row
        raise UnknownId(f"no one example's id begins with {beginning[:80]!r}")

    # The look

    def _look(self, *, settle: bool) -> Selected:
        with self._lock:
            self._note_news()
            self._derive_stale()
            if weigh(self._reader, settle=settle):
                self._derive_stale()
            self._cap_users()
            with self._database.read() as connection:
                return self._selected(connection)

    def _note_news(self) -> None:
        """Mark conversations with new judgements or decisions, or whose users' consent changed."""
        refusing, rules = self._curation.refusing(), self._digest_of_rules()
        while True:
            with self._database.read() as connection:
                state = read_state(connection)
                anew = state.rules != rules
                since = State(rules, state.version) if anew else state
                news, last_decision = decided_since(connection, since.last_decision)
                newest = last_event(connection)
            now = replace(
                since,
                last_event=newest,
                last_decision=last_decision,
                refusing=tuple(sorted(refusing)),
            )
            if now == state:
                return
            news |= self._reader.judged_since(since.last_event)[0]
            news |= self._reader.conversations_of(refusing ^ set(state.refusing))
            with self._database.write() as connection:
                if read_state(connection) != state:
                    continue  # another process was faster
                if anew:
                    clear(connection)
                mark_stale(connection, news)
                write_state(connection, replace(now, version=state.version + 1))
            return

    def _digest_of_rules(self) -> str:
        return digest_json(
            [
                DERIVATION,
                self._rules.max_answer_chars,
                self._rules.max_thumb_pairs,
                self._rules.user_share,
                self._rules.user_floor,
            ]
        )

    def _derive_stale(self) -> None:
        """Make the candidates of stale conversations anew, a batch at a time."""
        last: str | None = ""
        while last is not None:
            last = self._derive_after(last)

    @gc_disabled()
    def _derive_after(self, last: str) -> str | None:
        """Do the next batch after a conversation; returns the last one of it, None for no more."""
        with self._database.read() as connection:
            state = read_state(connection)
            batch = stale_after(connection, last, BATCH_CONVERSATIONS)
            trust, decisions = read_trust(connection, batch), read_decisions(connection)
        if not batch:
            return None
        derived = derive(self._reader.of(batch), self._rules_of(state), trust)
        with self._database.write() as connection:
            if read_state(connection) != state:
                return last  # somebody else changed what this was derived from
            rows, moves = choose(connection, batch, derived, decisions, self._read)
            tally = recount(state.counts, counts(connection, batch), moves, rows)
            replace_candidates(connection, batch, rows)
            move(connection, moves)
            unmark_stale(connection, set(batch) - derived.unfinished)
            otherwise = judged_otherwise(connection, batch, derived.shared)
            write_state(
                connection,
                replace(
                    state,
                    version=state.version + 1,
                    counts=tally,
                    unweighed=state.unweighed + otherwise,
                ),
            )
        return batch[-1]

    def _cap_users(self) -> None:
        """Set aside what is beyond a user's share, once anything has changed."""
        while True:
            with self._database.read() as connection:
                state = read_state(connection)
                if state.capped == state.version:
                    return
                moves = beyond_share(
                    connection, share=self._rules.user_share, floor=self._rules.user_floor
                )
            with self._database.write() as connection:
                if read_state(connection) == state:
                    tally, version = recount(state.counts, {}, moves), state.version + 1
                    move(connection, moves)
                    write_state(
                        connection, replace(state, version=version, capped=version, counts=tally)
                    )

    def _selected(self, connection: Connection) -> Selected:
        state = read_state(connection)
        known = {place: state.counts.get(place, {}) for place in (*KINDS, SET_ASIDE)}
        return Selected(state.last_event, last_erasure(connection), state.flip_rate, known)

    # Texts

    def _rules_of(self, state: State) -> Rules:
        return replace(self._rules, refusing_users=frozenset(state.refusing))

    def _read(self, rows: Sequence[Candidate]) -> Mapping[str, Example]:
        """The examples that rows stand for, by key, in people's words."""
        if not rows:
            return {}
        with self._database.read() as connection:
            found = self._with_texts(connection, [replace(r, place=r.kind) for r in rows], {})
            return {row.id: row for _, row in found if not isinstance(row, SetAside)}

    def _with_texts(
        self,
        connection: Connection,
        rows: Sequence[Candidate],
        decisions: Mapping[str, Decision] | None = None,
    ) -> Iterator[tuple[str, Row]]:
        state = read_state(connection)
        if decisions is None:
            decisions = read_decisions(connection, until=state.last_decision)
        return with_texts(connection, state, self._rules_of(state), decisions, rows)


def _mentions(row: Row, wanted: str, texts: Mapping[str, str]) -> bool:
    """Whether words are in a row's question or answers."""
    if isinstance(row, SetAside):
        said = [texts.get(answer_id, "") for answer_id in row.answer_ids]
    else:
        said = [row.prompt[-1].content, *(side.full_text for side in row.sides)]
    return any(wanted in text.casefold() for text in said)
