"""Writing imported turns into the tables. Knows tables and value types; knows no file formats."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Connection, Table, insert

from engine.messages import clean_text
from engine.prompts.modes import PromptTemplate
from feedback_store.examples.types import IMPORTED
from feedback_store.records import ImportedAnswer, ImportedTurn
from feedback_store.storage import tables as t
from feedback_store.storage.imported_conversations import ImportedLists, NewTurn

CHUNK_TURNS = 500
# By which each turn and answer is newer than the one before it in the file, to keep their order
MOMENT_SECONDS = 1e-6
MAX_USER_ID_CHARS = 64


def add_imported(
    connection: Connection, turns: Iterable[ImportedTurn], template: PromptTemplate, user_id: str
) -> int:
    """Store turns with their answers and statements; returns how many turns.

    `user_id` is who imports, and so whose turns they are; statements keep their own users.
    Raises `InvalidText` for a user's id that no database could hold.
    """
    stored = 0
    for chunk in _chunks(turns):
        _write(connection, chunk, template, user_id)
        stored += len(chunk)
    return stored


def add_conversations(
    connection: Connection, turns: Iterable[ImportedTurn], template: PromptTemplate, user_id: str
) -> int:
    """Store conversations of a person, to be listed, searched and gone on with.

    What this person imported before is not stored again. `template` adds nothing to a prompt.
    Returns how many conversations have something new.
    """
    lists = ImportedLists(connection, user_id)
    for chunk in _chunks(turns):
        _write(connection, lists.add(chunk), template, user_id)
    return lists.finish()


def turn_row(new: NewTurn, template: PromptTemplate, user_id: str) -> dict[str, Any]:
    """The row of an imported turn."""
    prompt = None if new.follows_parents else [each.as_dict() for each in new.turn.prompt]
    return {
        "id": new.id,
        "conversation_id": new.conversation_id,
        "parent_answer_id": new.parent_answer_id,
        "user_id": user_id,
        "question": new.turn.prompt[-1].content,
        "mode": template.mode,
        "template_hash": template.hash,
        "prompt": prompt,
        "created_at": new.at,
    }


def answer_row(answer: ImportedAnswer, answer_id: str, turn_id: str, at: float) -> dict[str, Any]:
    """The row of an imported answer to a turn."""
    return {
        "id": answer_id,
        "turn_id": turn_id,
        "status": "done",
        "text": answer.text,
        "thought": answer.thought,
        "complete": int(answer.complete),
        "base_digest": IMPORTED,
        "adapter_digest": None,
        "sampling": {"model": answer.model} if answer.model else {},
        "seed": 0,
        "created_at": at,
        "finished_at": at,
    }


def _write(
    connection: Connection, turns: Iterable[NewTurn], template: PromptTemplate, user_id: str
) -> None:
    rows: dict[Table, list[dict[str, Any]]] = {
        table: [] for table in (t.turns, t.answers, t.comparisons, t.events)
    }
    for new in turns:
        _Turn(new, template, user_id, rows).add()
    for table, values in rows.items():
        if values:
            connection.execute(insert(table), values)


class _Turn:
    """One turn on its way into rows."""

    def __init__(
        self,
        new: NewTurn,
        template: PromptTemplate,
        user_id: str,
        rows: dict[Table, list[dict[str, Any]]],
    ) -> None:
        self._new = new
        self._template = template
        self._user_id = user_id
        self._rows = rows

    def add(self) -> None:
        """Add all of its rows."""
        new, turn = self._new, self._new.turn
        self._rows[t.turns].append(turn_row(new, self._template, self._user_id))
        for place, answer in enumerate(turn.answers):
            answer_id, at = new.answer_ids[place], new.at + MOMENT_SECONDS * (1 + place)
            self._rows[t.answers].append(answer_row(answer, answer_id, new.id, at))
            for vote in answer.votes:
                self._event(
                    "vote",
                    vote.user,
                    answer_id=answer_id,
                    vote=vote.vote,
                    reasons=list(vote.reasons) or None,
                    comment=vote.comment or None,
                )
            for user, text in answer.corrections:
                self._event("correction", user, answer_id=answer_id, correction=text)
            if answer.flagged or turn.flagged:
                self._event("flag", self._user_id, answer_id=answer_id)
        for choice in turn.choices:
            self._choice(choice.user, choice.left, choice.right, choice.choice)

    def _choice(self, user: str, left: int, right: int, choice: str) -> None:
        comparison_id = uuid.uuid4().hex
        self._row(
            t.comparisons,
            id=comparison_id,
            turn_id=self._new.id,
            user_id=user,
            left_answer_id=self._new.answer_ids[left],
            right_answer_id=self._new.answer_ids[right],
            created_at=self._new.at,
        )
        self._event("choice", user, comparison_id=comparison_id, choice=choice)

    def _event(self, kind: str, user: str, **values: Any) -> None:
        empty = dict.fromkeys(
            ("answer_id", "comparison_id", "vote", "reasons", "comment", "correction", "choice")
        )
        self._row(
            t.events,
            **{**empty, **values},
            idempotency_key=uuid.uuid4().hex,
            kind=kind,
            created_at=self._new.at,
            user_id=clean_text(user, what="user's id", limit_chars=MAX_USER_ID_CHARS),
        )

    def _row(self, table: Table, **values: Any) -> None:
        self._rows[table].append(values)


def _chunks(turns: Iterable[ImportedTurn]) -> Iterator[list[NewTurn]]:
    """The turns a chunk at a time, each with the moment at which it came in."""
    chunk: list[NewTurn] = []
    at = time.time()
    for turn in turns:
        chunk.append(NewTurn(turn, at))
        at += MOMENT_SECONDS * (1 + len(turn.answers))
        if len(chunk) == CHUNK_TURNS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
