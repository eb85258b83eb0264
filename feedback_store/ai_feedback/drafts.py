"""Questions and answers that the engine drafted from passages, until a person decides about them.

A draft is trained on only once it is approved: then it is a liked answer to the prompt that shows
its passage, in a conversation of its own. A dropped one is not asked about again. Either decision
can be taken back. Knows tables; knows no engine.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from engine.errors import InvalidInput, UnknownId
from engine.messages import Message, require_text
from engine.prompts.modes import PromptTemplate
from feedback_store.records import OPERATOR, ImportedAnswer, ImportedTurn, ImportedVote
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.events import event_values
from feedback_store.storage.import_writer import add_imported
from feedback_store.storage.imported_conversations import NewTurn
from feedback_store.storage.turns import insert_template

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

    def waiting(
        self, limit: int | None = None, *, beside: Collection[str] = ()
    ) -> list[WaitingDraft]:
        """Return the drafts that nobody has decided about, the oldest first.

        `beside`: but for those that the caller has already.
        """
        table = t.drafts.c
        query = select(*DRAFT_COLUMNS).where(table.status == "waiting", table.id.not_in(beside))
        with self._database.read() as connection:
            oldest = query.order_by(table.created_at, table.id).limit(limit)
            return [_waiting(row) for row in connection.execute(oldest)]

    def count_waiting(self) -> int:
        """Return the number of drafts that nobody has decided about."""
        query = select(func.count()).select_from(t.drafts).where(t.drafts.c.status == "waiting")
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

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

    def approve(
        self, draft: Draft, draft_id: str, prompt: Sequence[Message], judge: str = OPERATOR
    ) -> None:
        """Let training learn the answer to a prompt, in the words of `draft`, as `judge` says.

        Raises `UnknownId` for one that was decided about meanwhile, `InvalidText` for a text that
        cannot be stored.
        """
        require_text(draft.answer, what="answer")
        vote = ImportedVote(judge, 1)
        turn = ImportedTurn(
            tuple(prompt),
            (ImportedAnswer(draft.answer, model=draft.model, votes=(vote,)),),
            conversation=_conversation_name(draft_id),
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

    def undo(self, draft_id: str, judge: str = OPERATOR) -> WaitingDraft:
        """Let a draft wait again; the judge's approval, if there is one, is taken back.

        Raises `UnknownId` where nothing was decided, or somebody else approved.
        """
        with self._database.write() as connection:
            found = _find(connection, draft_id, decided=True)
            approved = _approved_answers(connection, found.id, judge)
            this = t.drafts.c.id == found.id
            status = connection.execute(select(t.drafts.c.status).where(this)).scalar_one()
            if status == "approved":
                if not approved:
                    raise UnknownId(f"the draft {found.id[:8]} was approved by somebody else")
                for answer_id in approved:
                    said = {**event_values("vote", judge, None, vote=0), "answer_id": answer_id}
                    connection.execute(insert(t.events).values(said))
            connection.execute(update(t.drafts).where(this).values(status="waiting"))
        return found


def _conversation_name(draft_id: str) -> str:
    """The name by which an approved draft's turn has a conversation of its own."""
    return f"draft {draft_id}"


def _approved_answers(connection: Connection, draft_id: str, judge: str) -> list[str]:
    """The answers to a draft's question that a judge's latest vote approves."""
    named = ImportedTurn((Message("user", ""),), (), conversation=_conversation_name(draft_id))
    events, conversation_id = t.events.c, NewTurn(named, 0.0).conversation_id
    query = (
        select(events.answer_id, events.vote)
        .join(t.answers, t.answers.c.id == events.answer_id)
        .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
        .where(t.turns.c.conversation_id == conversation_id, events.user_id == judge)
        .order_by(events.id)
    )
    latest = {row.answer_id: row.vote for row in connection.execute(query)}
    return [answer_id for answer_id, vote in latest.items() if vote == 1]


def _find(connection: Connection, draft_id: str, *, decided: bool = False) -> WaitingDraft:
    """The one draft that waits, or that was decided about, with the beginning of an id."""
    if len(draft_id) < SHORTEST_PREFIX or not draft_id.isalnum():
        raise InvalidInput(f"not the id of a draft: {draft_id[:80]!r}")
    waits = t.drafts.c.status == "waiting"
    query = select(*DRAFT_COLUMNS).where(~waits if decided else waits)
    rows = connection.execute(query.where(t.drafts.c.id.startswith(draft_id))).all()
    if len(rows) != 1:
        state = "are decided about" if decided else "wait"
        said = f"{len(rows)} drafts that {state} have an id that begins with {draft_id[:80]}"
        raise UnknownId(said)
    return _waiting(rows[0])


def _decide(connection: Connection, draft_id: str, status: str, **texts: str) -> None:
    this = (t.drafts.c.id == draft_id) & (t.drafts.c.status == "waiting")
    decided = connection.execute(update(t.drafts).where(this).values(status=status, **texts))
    if decided.rowcount == 0:
        raise UnknownId(f"no draft {draft_id[:80]!r} waits")


def _waiting(row: Row[Any]) -> WaitingDraft:
    return WaitingDraft(**row._mapping)
