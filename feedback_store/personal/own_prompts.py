"""A person's own prompts: system prompts to choose from, and texts to ask with again.

Every method is one transaction and one person's: a prompt that is unknown and one that is somebody
else's get the same `UnknownId`. Knows tables; knows nothing of how prompts are used.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from sqlalchemy import ColumnElement, delete, func, insert, select, update

from engine.errors import InvalidInput, UnknownId
from engine.messages import clean_text, require_text
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database

PromptKind = Literal["system", "saved"]
PROMPT_KINDS: tuple[str, ...] = get_args(PromptKind)
MAX_PROMPTS = 200  # of one person
MAX_PROMPT_TITLE_CHARS = 80
MAX_PROMPT_CHARS = 8_000


@dataclass(frozen=True, slots=True)
class PromptText:
    """A prompt by a name. Of kind "system" it is shown before a conversation; a "saved" one is put
    into the question's box, where its `{{fields}}` are filled in."""

    kind: PromptKind
    title: str
    text: str

    def checked(self) -> PromptText:
        """The prompt with its title in one line; raises `InvalidInput` for what cannot be kept."""
        if self.kind not in PROMPT_KINDS:
            raise InvalidInput(f"unknown kind {self.kind!r}; known: {', '.join(PROMPT_KINDS)}")
        title = require_text(self.title, what="title", limit_chars=MAX_PROMPT_TITLE_CHARS)
        require_text(self.text, what="prompt", limit_chars=MAX_PROMPT_CHARS)
        return PromptText(self.kind, " ".join(title.split()), self.text)


@dataclass(frozen=True, slots=True)
class OwnPrompt(PromptText):
    """One that a person keeps."""

    id: str


class OwnPrompts:
    """The prompts of every person, one person at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, user_id: str) -> list[OwnPrompt]:
        """A person's prompts, by title."""
        columns = [t.prompts.c[name] for name in ("kind", "title", "text", "id")]
        query = select(*columns).where(t.prompts.c.user_id == user_id)
        with self._database.read() as connection:
            found = [OwnPrompt(*row) for row in connection.execute(query)]
        return sorted(found, key=lambda prompt: (prompt.title.casefold(), prompt.id))

    def add(self, user_id: str, prompt: PromptText) -> str:
        """Keep one more; returns its id. Raises `InvalidInput` where the person has too many."""
        row = {"id": uuid.uuid4().hex, "user_id": user_id, "created_at": time.time()}
        own = select(func.count()).select_from(t.prompts).where(t.prompts.c.user_id == user_id)
        with self._database.write() as connection:
            if connection.execute(own).scalar_one() >= MAX_PROMPTS:
                raise InvalidInput(f"you keep {MAX_PROMPTS} prompts already; remove one first")
            connection.execute(insert(t.prompts).values(**row, **asdict(prompt.checked())))
        return str(row["id"])

    def change(self, prompt_id: str, user_id: str, prompt: PromptText) -> None:
        """Put other words in the place of a prompt's."""
        values = asdict(prompt.checked())
        with self._database.write() as connection:
            which = _own(prompt_id, user_id)
            if connection.execute(update(t.prompts).where(which).values(values)).rowcount == 0:
                raise _unknown(prompt_id)

    def remove(self, prompt_id: str, user_id: str) -> None:
        """Keep a prompt no longer; conversations that were asked with it keep its words."""
        with self._database.write() as connection:
            which = _own(prompt_id, user_id)
            if connection.execute(delete(t.prompts).where(which)).rowcount == 0:
                raise _unknown(prompt_id)


def _own(prompt_id: str, user_id: str) -> ColumnElement[bool]:
    return (t.prompts.c.id == clean_text(prompt_id)) & (t.prompts.c.user_id == user_id)


def _unknown(prompt_id: str) -> UnknownId:
    return UnknownId(f"no prompt {prompt_id[:80]!r}")
