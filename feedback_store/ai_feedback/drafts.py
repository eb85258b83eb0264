"""Questions and answers that the engine drafted from passages, until a person decides about them.

A draft is trained on only once it is approved: then it is a liked answer to the prompt that shows
its passage. Whoever drops one is not asked again. Knows tables; knows no engine.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from engine.errors import InvalidInput, UnknownId
from engine.messages import Message, require_text
from engine.prompts.modes import PromptTemplate
from feedback_store.records import OPERATOR, ImportedAnswer, ImportedTurn, ImportedVote
from feedback_store.storage import tables as t
from feedback_store.storage.answers import insert_template
from feedback_store.storage.database import Database
from feedback_store.storage.import_writer import add_imported

SHORTEST_PREFIX = 4  # characters of an id
DRAFT_COLUMNS = t.columns(t.drafts, "id collection passage question answer model")


@dataclass(frozen=True, slots=True)
class Draft:
    """A question and its answer, and the passage that both were made from.

    The passage is as a turn keeps it: its "text", "source", and "page" or "heading".
    """

    collection: str
    passage: Mapping[str, Any]
    question: str
    answer: str
    model: str  # who wrote it


@dataclass(frozen=True, slots=True)
class WaitingDraft(Draft):
    """One that nobody has decided about."""

    id: str


class Drafts:
    """The drafts of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, drafts: Iterable[Draft]) -> None:
        """Keep drafts for a person to decide about."""
        new = {"status": "waiting", "created_at": time.time()}
        rows = [{**t.row_of(each), "id": uuid.uuid4().hex, **new} for each in drafts]
        if rows:
            with self._database.write() as connection:
                connection.execute(insert(t.drafts), rows)

    def waiting(self) -> list[WaitingDraft]:
        """Return the drafts that nobody has decided about, the oldest first."""
        query = select(*DRAFT_COLUMNS).where(t.drafts.c.status == "waiting")
        with self._database.read() as connection:
            oldest = query.order_by(t.drafts.c.created_at, t.drafts.c.id)
            return [_waiting(row) for row in connection.execute(oldest)]

    def drafted(self, collection: str) -> tuple[set[str], list[str]]:
        """Return the texts of a collection's passages that have drafts, whatever became of them,
        and all their questions."""
        query = select(t.drafts.c.passage, t.drafts.c.question)
        with self._database.read() as connection:
            rows = connection.execute(query.where(t.drafts.c.collection == collection)).all()
        return {row.passage["text"] for row in rows}, [row.question for row in rows]

    def find(self, draft_id: str) -> WaitingDraft:
        """Return the draft that waits with this id, or beginning of one; raises `UnknownId`."""
        with self._database.read() as connection:
            return _find(connection, draft_id)

    def approve(self, draft: Draft, draft_id: str, prompt: Sequence[Message]) -> None:
        """Let training learn the answer to a prompt, in the words of `draft`.

        Raises `UnknownId` for one that was decided about meanwhile, `InvalidText` for a text that
        cannot be stored.
        """
        require_text(draft.answer, what="answer")
        turn = ImportedTurn(
            tuple(prompt),
            (ImportedAnswer(draft.answer, model=draft.model, votes=(ImportedVote(OPERATOR, 1),)),),
        )
        as_it_is = PromptTemplate("plain", "", "", ())
        with self._database.write() as connection:
            _decide(connection, draft_id, "approved", question=draft.question, answer=draft.answer)
            insert_template(connection, as_it_is)
            add_imported(connection, [turn], as_it_is, OPERATOR)

    def drop(self, draft_id: str) -> WaitingDraft:
        """Learn nothing from a draft; returns it. Raises `UnknownId`."""
        with self._database.write() as connection:
            found = _find(connection, draft_id)
            _decide(connection, found.id, "dropped")
        return found


def _find(connection: Connection, draft_id: str) -> WaitingDraft:
    if len(draft_id) < SHORTEST_PREFIX or not draft_id.isalnum():
        raise InvalidInput(f"not the id of a draft: {draft_id[:80]!r}")
    query = select(*DRAFT_COLUMNS).where(t.drafts.c.status == "waiting")
    rows = connection.execute(query.where(t.drafts.c.id.startswith(draft_id))).all()
    if len(rows) != 1:
        raise UnknownId(f"{len(rows)} drafts that wait have an id that begins with {draft_id[:80]}")
    return _waiting(rows[0])


def _decide(connection: Connection, draft_id: str, status: str, **texts: str) -> None:
    this = (t.drafts.c.id == draft_id) & (t.drafts.c.status == "waiting")
    decided = connection.execute(update(t.drafts).where(this).values(status=status, **texts))
    if decided.rowcount == 0:
        raise UnknownId(f"no draft {draft_id[:80]!r} waits")


def _waiting(row: Row[Any]) -> WaitingDraft:
    return WaitingDraft(**row._mapping)
