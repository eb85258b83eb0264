"""A person's questions: checked at once, and written in somebody's transaction.

The first answer to a question is begun in the same transaction, so that asking costs one commit.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Required, TypedDict, Unpack

from sqlalchemy import Connection, insert, select

from engine.errors import UnknownId
from engine.messages import Message, clean_text, require_text
from engine.prompts.modes import PromptTemplate
from feedback_store.records import Turn
from feedback_store.storage import tables as t
from feedback_store.storage.database import insert_once
from feedback_store.storage.kept_changes import note_continued
from feedback_store.storage.listing import list_turn, require_own_or_new

MAX_ID_CHARS = 64
TURN_COLUMNS = [t.turns.c[name] for name in Turn.__dataclass_fields__]
INSERT_TURN = insert(t.turns)


class AskedTurn(TypedDict, total=False):
    """The fields of a question that a person asked.

    `prompt` is given only where the messages shown are not the template over the chain of parent
    answers; examples from feedback are no part of it, `example_ids` refers to them. `passages` of
    documents are those that the prompt shows; None: it was asked without any. `listed`: in the
    person's list of conversations, and found in a search (default: yes).
    """

    user_id: Required[str]
    question: Required[str]
    template: Required[PromptTemplate]
    conversation_id: Required[str]
    parent_answer_id: str | None
    prompt: Sequence[Message] | None
    example_ids: Sequence[str]
    passages: Sequence[Mapping[str, Any]] | None
    listed: bool


@dataclass(frozen=True, slots=True)
class UnstoredTurn:
    """A turn that is not stored yet.

    `add` stores it. It raises `UnknownId` for a parent that is not this user's, in this
    conversation, and for a conversation that is another's or was deleted.
    """

    turn: Turn
    add: Callable[[Connection], None]


def new_turn(**asked: Unpack[AskedTurn]) -> UnstoredTurn:
    """Return a turn to store; raises `InvalidText`.

    A question that goes on from a changed answer says that its person prefers it: see
    `kept_changes`.
    """
    user_id, template = asked["user_id"], asked["template"]
    question, parent_answer_id = require_text(asked["question"]), asked.get("parent_answer_id")
    conversation_id = clean_text(
        asked["conversation_id"], what="conversation's id", limit_chars=MAX_ID_CHARS
    )
    fields = template.mode, template.hash
    turn = Turn(new_id(), conversation_id, parent_answer_id, user_id, question, *fields)
    row = {**t.row_of(turn), **_shown_columns(asked)}

    def add(connection: Connection) -> None:
        listed = asked.get("listed", True)
        if listed:
            require_own_or_new(connection, conversation_id, user_id)
        if parent_answer_id is not None:
            _require_in_conversation(connection, parent_answer_id, user_id, conversation_id)
            note_continued(connection, parent_answer_id, user_id)
        insert_template(connection, template)
        now = time.time()
        connection.execute(INSERT_TURN, {"created_at": now, **row})
        if listed:
            list_turn(connection, turn, now)

    return UnstoredTurn(turn, add)


def new_id() -> str:
    """A fresh random id."""
    return uuid.uuid4().hex


def own_turn(connection: Connection, answer_id: str, user_id: str) -> dict[str, Any]:
    """The turn of an answer of this user's; raises `UnknownId`."""
    query = (
        select(*TURN_COLUMNS)
        .join(t.answers, t.answers.c.turn_id == t.turns.c.id)
        .where(t.answers.c.id == clean_text(answer_id), t.turns.c.user_id == user_id)
    )
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise UnknownId(f"no answer {answer_id[:80]!r}")
    return dict(row)


def _shown_columns(asked: AskedTurn) -> dict[str, Any]:
    """Return the columns of a turn that say what its prompt showed."""
    prompt, passages = asked.get("prompt"), asked.get("passages")
    return {
        "prompt": None if prompt is None else [message.as_dict() for message in prompt],
        "example_ids": list(asked.get("example_ids", ())) or None,
        "passages": None if passages is None else list(passages),
    }


def _require_in_conversation(
    connection: Connection, answer_id: str, user_id: str, conversation_id: str
) -> None:
    """Raise `UnknownId` for an answer that is not this user's, in this conversation."""
    if own_turn(connection, answer_id, user_id)["conversation_id"] != conversation_id:
        raise UnknownId(f"no answer {answer_id[:80]!r} in this conversation")


def insert_template(connection: Connection, template: PromptTemplate) -> None:
    """Store a prompt template, unless it is there."""
    row = {"hash": template.hash, "definition": template.as_dict()}
    insert_once(connection, t.templates, row)
