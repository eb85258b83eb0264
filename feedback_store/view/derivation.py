"""Deriving candidates from evidence, and the texts of stored candidates. Reads only.

Both go the same way: the texts of a candidate are not kept, they are derived again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from engine.storage import digest_json
from feedback_store.curation.decisions import read_decisions
from feedback_store.examples.pairing import PromptExamples, build_prompt_examples
from feedback_store.examples.rules import Rules
from feedback_store.examples.selection import as_decided
from feedback_store.examples.shares import users_of
from feedback_store.examples.trust import Trust
from feedback_store.examples.types import (
    EXAMPLE_KINDS,
    SetAside,
    TrainingExample,
    label_of,
    set_aside,
)
from feedback_store.records import PromptEvidence
from feedback_store.storage.evidence import read_evidence
from feedback_store.view.annotator_reliability import read_trust, shared_votes
from feedback_store.view.candidates import SET_ASIDE, Candidate, Item
from feedback_store.view.state import ViewState, read_state


@dataclass
class Derived:
    """The candidates of some conversations, with what each stands for."""

    rows: list[Candidate] = field(default_factory=list)
    items: dict[str, Item] = field(default_factory=dict)  # by key
    unfinished: set[str] = field(default_factory=set)  # with a judged answer that still streams
    shared: dict[str, str] = field(default_factory=dict)  # answer -> digest of its several votes


def derive(evidence: Iterable[PromptEvidence], rules: Rules, trust: Trust) -> Derived:
    """Derive the candidates of conversations, each with the status its prompt alone gives it."""
    derived = Derived()
    for each in evidence:
        prompt = build_prompt_examples(each, rules, trust)
        for candidate, item in candidates_of(prompt):
            derived.rows.append(candidate)
            derived.items[candidate.key] = item
        if any(answer.status == "streaming" for answer in each.answers):
            derived.unfinished.add(each.conversation_id)
        derived.shared |= shared_votes(
            vote for vote in each.votes if vote.user_id not in rules.refusing_users
        )
    return derived


def candidates_of(prompt: PromptExamples) -> Iterator[tuple[Candidate, Item]]:
    """One candidate for each example of a prompt, and for each statement that makes none."""
    for kind in EXAMPLE_KINDS:
        for example in prompt.of_kind(kind):
            origin = example.origin
            yield (
                Candidate(
                    conversation_id=origin.conversation_id,
                    key=example.id,
                    kind=kind,
                    source=example.source,
                    topic=prompt.topic,
                    label=int(label_of(example)),
                    first_event=origin.event_ids[0],
                    users="\n".join(users_of(example)),
                    status=kind,
                    reason=example.source,
                ),
                example,
            )
    for item in prompt.set_aside:
        yield (
            Candidate(
                conversation_id=item.conversation_id,
                key=digest_json([item.reason, item.answer_ids, item.event_ids]),
                kind=SET_ASIDE,
                source=item.reason,
                topic=prompt.topic,
                label=0,
                first_event=item.event_ids[0],
                users="",
                status=SET_ASIDE,
                reason=item.reason,
            ),
            item,
        )


def rules_at(state: ViewState, rules: Rules) -> Rules:
    """The rules with the users who refused when the view was last refreshed."""
    return replace(rules, refusing_users=frozenset(state.refusing))


def load_items(
    connection: Connection, rules: Rules, rows: Sequence[Candidate]
) -> Iterator[tuple[str, Item]]:
    """Load what rows stand for, in their order, each with its status; edits are applied.

    A row without evidence is left out: the end of an answer has changed it, and the next refresh
    will see that.
    """
    decisions = read_decisions(connection, until=read_state(connection).last_decision)
    items = _items_of(connection, rules, rows)
    for row in rows:
        item = items.get(row.key)
        if item is None:
            continue
        if not isinstance(item, SetAside):
            item = as_decided(item, decisions.get(row.key))
            if row.status == SET_ASIDE:
                item = set_aside(row.reason, item)
        yield row.status, item


def load_originals(
    connection: Connection, rules: Rules, rows: Sequence[Candidate]
) -> Mapping[str, TrainingExample]:
    """Load the examples that rows stand for, by key, in people's own words."""
    items = _items_of(connection, rules, rows) if rows else {}
    wanted = {row.key for row in rows}
    return {
        key: item for key, item in items.items() if key in wanted and not isinstance(item, SetAside)
    }


def _items_of(
    connection: Connection, rules: Rules, rows: Sequence[Candidate]
) -> Mapping[str, Item]:
    state = read_state(connection)
    conversations = sorted({row.conversation_id for row in rows})
    evidence = read_evidence(connection, conversations, until=state.last_event)
    trust = read_trust(connection, conversations)
    return derive(evidence, rules_at(state, rules), trust).items
