"""A search among candidates: in their texts, in what was said of them, and for people."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, select, union

from feedback_store.examples.types import SetAside
from feedback_store.storage import tables as t
from feedback_store.storage.database import batches
from feedback_store.storage.wanted import Wanted, contains, stated
from feedback_store.view.candidates import Item


def in_conversations_with(wanted: Wanted) -> ColumnElement[bool]:
    """Candidates of conversations in which words were said, whatever the case of their letters, or
    in which a wanted person or reason judged."""
    turns, answers, events, decisions = t.turns.c, t.answers.c, t.events.c, t.decisions.c
    answered = t.turns.join(t.answers, answers.turn_id == turns.id)
    judged = answered.join(t.events, events.answer_id == answers.id)
    compared = t.turns.join(t.comparisons, t.comparisons.c.turn_id == turns.id).join(
        t.events, events.comparison_id == t.comparisons.c.id
    )

    def says(*columns: Any) -> ColumnElement[bool]:
        return contains(wanted.words, *columns)

    conversations = (
        select(turns.conversation_id).where(says(turns.question)),
        select(turns.conversation_id)
        .select_from(answered)
        .where(says(answers.text, answers.thought)),
        select(turns.conversation_id).select_from(judged).where(stated(wanted)),
        select(turns.conversation_id).select_from(compared).where(stated(wanted)),
        select(decisions.conversation_id).where(says(decisions.chosen, decisions.rejected)),
    )
    return t.candidates.c.conversation_id.in_(union(*conversations))


def matching_events(
    connection: Connection, wanted: Wanted, event_ids: Collection[int]
) -> frozenset[int]:
    """The events of some that a search finds by their person, comment, correction or reasons."""
    found: set[int] = set()
    for some in batches(event_ids):
        query = select(t.events.c.id).where(t.events.c.id.in_(some), stated(wanted))
        found.update(connection.execute(query).scalars())
    return frozenset(found)


def event_ids_of(item: Item) -> Sequence[int]:
    """The statements that an item rests on."""
    return item.event_ids if isinstance(item, SetAside) else item.origin.event_ids


def is_wanted(
    item: Item, wanted: Wanted, answer_texts: Mapping[str, str], matching: frozenset[int]
) -> bool:
    """Return whether a search finds an item: by its texts, or by the statements that it rests on.

    `answer_texts` has the answers of statements that are set aside, `matching` the statements that
    the search finds.
    """
    if not matching.isdisjoint(event_ids_of(item)):
        return True
    if isinstance(item, SetAside):
        return wanted.is_in(*(answer_texts.get(answer_id, "") for answer_id in item.answer_ids))
    return wanted.is_in(item.prompt[-1].content, *(side.full_text for side in item.sides))
