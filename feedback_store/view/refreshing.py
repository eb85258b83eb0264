"""The refresh of the view: note news, derive what is stale, weigh voters, cap users.

An hour's feedback costs what an hour's feedback is, whichever process refreshes. Each step is a
short transaction, so that votes go on, and a process that dies in the middle leaves the rest to the
next refresh. A step that finds that another process has changed the state starts again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from engine.garbage import gc_disabled
from feedback_store.curation.decisions import Curation, decided_since, read_decisions
from feedback_store.examples.rules import Rules
from feedback_store.examples.types import TrainingExample
from feedback_store.storage.evidence import EvidenceReader, last_event
from feedback_store.storage.stale_conversations import mark_stale, stale_after, unmark_stale
from feedback_store.view.annotator_reliability import (
    count_changed_votes,
    read_trust,
    reestimate_trust,
)
from feedback_store.view.candidates import (
    Candidate,
    count_candidates,
    replace_candidates,
    update_counts,
    write_changes,
)
from feedback_store.view.deduplication import deduplicate
from feedback_store.view.derivation import derive, load_originals, rules_at
from feedback_store.view.state import ViewState, clear_view, read_state, write_state
from feedback_store.view.user_shares import changes_of_shares
from feedback_store.view.version import rules_version

# The number of conversations that are derived in one transaction, for which whoever votes waits
DERIVED_AT_ONCE = 400


class Refresher:
    """Brings the view up to date with the evidence, the decisions and the rules."""

    def __init__(self, reader: EvidenceReader, curation: Curation, rules: Rules) -> None:
        self._reader = reader
        self._database = reader.database
        self._curation = curation
        self._rules = rules

    def refresh(self, *, reestimate: bool) -> None:
        """Bring the view up to date; `reestimate` estimates the trust in users in any case."""
        self._mark_news_stale()
        self._derive_stale()
        if reestimate_trust(self._reader, now=reestimate):
            self._derive_stale()
        self._apply_shares()

    def _mark_news_stale(self) -> None:
        """Mark conversations with new judgements or decisions, or whose users' consent changed."""
        refusing, rules = self._curation.refusing(), rules_version(self._rules)
        while True:
            with self._database.read() as connection:
                state = read_state(connection)
                has_other_rules = state.rules != rules
                since = ViewState(rules, state.version) if has_other_rules else state
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
            news |= self._reader.judged_since(since.last_event)
            news |= self._reader.conversations_of(refusing ^ set(state.refusing))
            with self._database.write() as connection:
                if read_state(connection) != state:
                    continue
                if has_other_rules:
                    clear_view(connection)
                mark_stale(connection, news)
                write_state(connection, replace(now, version=state.version + 1))
            return

    def _derive_stale(self) -> None:
        """Derive the candidates of stale conversations anew, a batch at a time."""
        last: str | None = ""
        while last is not None:
            last = self._derive_after(last)

    @gc_disabled()
    def _derive_after(self, last: str) -> str | None:
        """Derive the batch after a conversation; returns its last one, or None for no more."""
        with self._database.read() as connection:
            state = read_state(connection)
            batch = stale_after(connection, last, DERIVED_AT_ONCE)
            trust, decisions = read_trust(connection, batch), read_decisions(connection)
        if not batch:
            return None
        derived = derive(self._reader.of(batch), rules_at(state, self._rules), trust)
        with self._database.write() as connection:
            if read_state(connection) != state:
                return last
            rows, changes = deduplicate(connection, batch, derived, decisions, self._load_originals)
            deleted = count_candidates(connection, batch)
            replace_candidates(connection, batch, rows)
            write_changes(connection, changes)
            unmark_stale(connection, set(batch) - derived.unfinished)
            changed_votes = count_changed_votes(connection, batch, derived.shared)
            write_state(
                connection,
                replace(
                    state,
                    version=state.version + 1,
                    counts=update_counts(state.counts, deleted, changes, rows),
                    unweighed=state.unweighed + changed_votes,
                ),
            )
        return batch[-1]

    def _load_originals(self, rows: Sequence[Candidate]) -> Mapping[str, TrainingExample]:
        with self._database.read() as connection:
            return load_originals(connection, self._rules, rows)

    def _apply_shares(self) -> None:
        """Set aside what is beyond a user's share, once anything has changed."""
        while True:
            with self._database.read() as connection:
                state = read_state(connection)
                if state.capped == state.version:
                    return
                changes = changes_of_shares(connection, self._rules)
            with self._database.write() as connection:
                if read_state(connection) == state:
                    write_changes(connection, changes)
                    counts = update_counts(state.counts, {}, changes)
                    version = state.version + 1
                    write_state(
                        connection, replace(state, version=version, capped=version, counts=counts)
                    )
