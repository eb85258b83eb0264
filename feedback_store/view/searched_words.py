"""Words searched for in the conversations and texts of candidates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, union

from feedback_store.examples.types import SetAside
from feedback_store.storage import tables as t
from feedback_store.view.candidates import Item


def in_conversations_with(words: str) -> ColumnElement[bool]:
    """Candidates of conversations in which words were said, whatever the case of their letters.

    SQLite knows the case of ASCII letters alone.
    """
    turns, answers, events, decisions = t.turns.c, t.answers.c, t.events.c, t.decisions.c

    def says(*columns: Any) -> ColumnElement[bool]:
        return or_(*(func.lower(column).contains(words, autoescape=True) for column in columns))

    answered = t.turns.join(t.answers, answers.turn_id == turns.id)
    judged = answered.join(t.events, events.answer_id == answers.id)
    conversations = (
        select(turns.conversation_id).where(says(turns.question)),
        select(turns.conversation_id)
        .select_from(answered)
        .where(says(answers.text, answers.thought)),
        select(turns.conversation_id).select_from(judged).where(says(events.correction)),
        select(decisions.conversation_id).where(says(decisions.chosen, decisions.rejected)),
    )
    return t.candidates.c.conversation_id.in_(union(*conversations))


def has_words(item: Item, words: str, answer_texts: Mapping[str, str]) -> bool:
    """Whether words are in an item's question or answers.

    `answer_texts` has the answers of statements that are set aside.
    """
    if isinstance(item, SetAside):
        said = [answer_texts.get(answer_id, "") for answer_id in item.answer_ids]
    else:
        said = [item.prompt[-1].content, *(side.full_text for side in item.sides)]
    return any(words in text.casefold() for text in said)
