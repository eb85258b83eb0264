"""From conversations' evidence to candidates, and from candidates back to their texts. Reads only.

Both go the same way: a candidate's texts are not kept, they are derived again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from feedback_store.examples.pairing import build_prompt_examples
from feedback_store.examples.rules import Rules
from feedback_store.examples.selection import as_decided
from feedback_store.examples.trust import Trust
from feedback_store.examples.types import SetAside, set_aside
from feedback_store.records import Decision, PromptEvidence
from feedback_store.storage.evidence import read_evidence
from feedback_store.view.annotator_reliability import read_trust, shared_votes
from feedback_store.view.candidates import SET_ASIDE, Candidate, Row, State, candidates_of


@dataclass
class Derived:
    """What some conversations' evidence gives."""

    rows: list[Candidate] = field(default_factory=list)
    found: dict[str, Row] = field(default_factory=dict)  # by key
    unfinished: set[str] = field(default_factory=set)  # with a judged answer that still streams
    shared: dict[str, str] = field(default_factory=dict)  # answer -> digest of its several votes


def derive(evidence: Iterable[PromptEvidence], rules: Rules, trust: Trust) -> Derived:
    """The candidates of some conversations, each where its conversation alone would have it."""
    derived = Derived()
    for each in evidence:
        prompt = build_prompt_examples(each, rules, trust)
        for candidate, row in candidates_of(prompt):
            derived.rows.append(candidate)
            derived.found[candidate.key] = row
        if any(answer.status == "streaming" for answer in each.answers):
            derived.unfinished.add(each.conversation_id)
        derived.shared |= shared_votes(
            vote for vote in each.votes if vote.user_id not in rules.refusing_users
        )
    return derived


def with_texts(
    connection: Connection,
    state: State,
    rules: Rules,
    decisions: Mapping[str, Decision],
    rows: Sequence[Candidate],
) -> Iterator[tuple[str, Row]]:
    """The examples and statements that rows stand for, in their order, each with its place."""
    conversations = sorted({row.conversation_id for row in rows})
    derived = derive(
        read_evidence(connection, conversations, until=state.last_event),
        replace(rules, refusing_users=frozenset(state.refusing)),
        read_trust(connection, conversations),
    )
    for row in rows:
        found = derived.found.get(row.key)
        if found is None:
            continue  # an answer's end has changed it, and the next look will see that
        if not isinstance(found, SetAside):
            found = as_decided(found, decisions.get(row.key))
            if row.place == SET_ASIDE:
                found = set_aside(row.reason, found)
        yield row.place, found
