"""All examples of now, kept up to date as people go on judging.

Rereads the conversations that were judged since the last look and nothing else, so that an hour's
feedback costs what an hour's feedback is. Safe to share between threads. Holds the examples'
texts in memory; whoever needs them once asks once and lets go.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from feedback_store.curation import Curation, Decision
from feedback_store.evidence import EvidenceReader
from feedback_store.pairing import PromptExamples, Rules, build_examples, unanimous
from feedback_store.records import CurrentVote
from feedback_store.selection import Examples, select
from feedback_store.trust import Judgement, Trust, estimate, is_contested


@dataclass(frozen=True, slots=True)
class Selected:
    """The examples of a moment and what they rest on."""

    examples: Examples
    last_event: int
    last_erasure: int
    trust: Trust


@dataclass
class _Known:
    """What has been read so far. Thrown away whole when somebody is forgotten."""

    last_erasure: int
    last_event: int = 0
    conversations: dict[str, list[PromptExamples]] = field(default_factory=dict)
    unfinished: set[str] = field(default_factory=set)  # with a judged answer that still streams
    trust: Trust = field(default_factory=lambda: estimate(()))
    shared_votes: frozenset[int] = frozenset()  # the events that the trust rests on
    decisions: dict[str, Decision] | None = None
    selected: Selected | None = None


class TrainingSet:
    """The examples that a store's evidence gives."""

    def __init__(
        self,
        reader: EvidenceReader,
        curation: Curation,
        rules: Rules | None = None,
        *,
        user_share: float = 0.2,
        user_floor: int = 50,
    ) -> None:
        self._reader = reader
        self._curation = curation
        self._rules = rules or Rules()
        self._user_share = user_share
        self._user_floor = user_floor
        self._lock = threading.Lock()
        self._known = _Known(reader.last_erasure())

    def select(self) -> Selected:
        """The examples of now.

        The trust in each user is estimated anew once a tenth of the shared judgements, on which
        it rests, is new or gone; `settle` does it at once.
        """
        return self._look(settle=False)

    def settle(self) -> Selected:
        """The same from a fresh estimate of trust: what is frozen into a snapshot."""
        return self._look(settle=True)

    def holds_still(self, selected: Selected) -> bool:
        """Whether nobody was forgotten since."""
        return self._reader.last_erasure() == selected.last_erasure

    def _look(self, *, settle: bool) -> Selected:
        with self._lock:
            try:
                return self._select(settle=settle)
            except BaseException:
                self._known = _Known(self._known.last_erasure)  # half of it is new: read it anew
                raise

    def _select(self, *, settle: bool) -> Selected:
        last_erasure = self._reader.last_erasure()
        if last_erasure != self._known.last_erasure:
            self._known = _Known(last_erasure)
        known = self._known
        judged, known.last_event = self._reader.judged_since(known.last_event)
        changed = judged | known.unfinished | self._refusals_changed() | self._weigh(settle=settle)
        if changed:
            self._rebuild(changed)
        decisions = self._curation.decisions()
        if changed or known.selected is None or decisions != known.decisions:
            known.decisions = decisions
            known.selected = Selected(
                self._examples(decisions), known.last_event, last_erasure, known.trust
            )
        return replace(known.selected, last_event=known.last_event)

    def _examples(self, decisions: dict[str, Decision]) -> Examples:
        prompts = [
            prompt for _, each in sorted(self._known.conversations.items()) for prompt in each
        ]
        return select(prompts, decisions, user_share=self._user_share, user_floor=self._user_floor)

    def _refusals_changed(self) -> set[str]:
        """Conversations of those who gave or took back their consent since the last look."""
        refusing = self._curation.refusing()
        changed = refusing ^ self._rules.refusing_users
        self._rules = replace(self._rules, refusing_users=refusing)
        return self._reader.conversations_of(changed) if changed else set()

    def _weigh(self, *, settle: bool) -> set[str]:
        """Estimate the trust in each user; returns the conversations that it may decide."""
        known, refusing = self._known, self._rules.refusing_users
        shared = [(c, v) for c, v in self._reader.shared_votes() if v.user_id not in refusing]
        events = frozenset(vote.event_id for _, vote in shared)
        if len(events ^ known.shared_votes) <= (0 if settle else len(known.shared_votes) / 10):
            return set()
        known.shared_votes = events
        known.trust = estimate(
            Judgement(vote.answer_id, vote.user_id, vote.vote > 0) for _, vote in shared
        )
        return {conversation_id for conversation_id, _ in shared}

    def _rebuild(self, conversation_ids: set[str]) -> None:
        known = self._known
        found: dict[str, list[PromptExamples]] = defaultdict(list)
        known.unfinished -= conversation_ids
        for evidence in self._reader.of(conversation_ids):
            found[evidence.conversation_id].append(
                build_examples(evidence, self._rules, self._verdict)
            )
            if any(answer.status == "streaming" for answer in evidence.answers):
                known.unfinished.add(evidence.conversation_id)
        for conversation_id in conversation_ids:
            known.conversations.pop(conversation_id, None)
        known.conversations.update(found)

    def _verdict(self, votes: Sequence[CurrentVote]) -> int | None:
        """What the voters say together, each weighed by the trust in them."""
        if is_contested(votes, self._known.trust):
            return None
        weighed = self._known.trust.verdict(votes[0].answer_id)
        if unanimous(votes) is None and weighed is not None:
            return 1 if weighed.up else -1
        return votes[0].vote
