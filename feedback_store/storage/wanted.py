"""A search for what people said and who they are: words, reasons of votes, and people by name.

Knows tables; knows nothing of languages: who searches says which reasons and people the words name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, String, cast, func, or_

from feedback_store.storage import tables as t


@dataclass(frozen=True, slots=True)
class Wanted:
    """Words in lower case, the reasons whose names have them, and the ids of people so named."""

    words: str = ""
    reasons: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()

    def is_in(self, *texts: str) -> bool:
        """Return whether the words are in one of some texts."""
        return any(self.words in text.casefold() for text in texts)


def contains(words: str, *columns: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return a condition: words in one of some columns. SQLite folds the case of ASCII alone."""
    return or_(*(func.lower(column).contains(words, autoescape=True) for column in columns))


def stated(wanted: Wanted) -> ColumnElement[bool]:
    """Return a condition: an event is by a wanted person, has the words in its text, or
    one of the reasons."""
    events = t.events.c
    reasons = cast(events.reasons, String)  # a JSON list of words
    return or_(
        contains(wanted.words, events.comment, events.correction, events.user_id),
        events.user_id.in_(wanted.users),
        *(reasons.contains(f'"{reason}"', autoescape=True) for reason in wanted.reasons),
    )
