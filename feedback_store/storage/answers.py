"""Turns and answers: writing and reading them.

Each write is durable when its method returns; those that come at once share a transaction, since
eight people's questions would otherwise wait for sixteen syncs of the disk in a row. Ids are
checked against their user: an id that is unknown and one that is somebody else's get the same
`UnknownId`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Unpack

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    and_,
    bindparam,
    func,
    insert,
    or_,
    select,
    update,
)

from engine.errors import Conflict
from engine.messages import Message
from engine.prompts.examples import Example
from feedback_store.records import AnswerStatus, StoredAnswer, Turn
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import answer_columns, read_answer_texts, read_templates
from feedback_store.storage.group_commit import GroupCommit
from feedback_store.storage.listing import show_new_answer
from feedback_store.storage.prompts import Exchange, read_history, rebuild_prompt
from feedback_store.storage.search import add_document
from feedback_store.storage.stale_conversations import mark_stale
from feedback_store.storage.turns import AskedTurn, UnstoredTurn, new_id, new_turn, own_turn

# Statements of every answer are made once: to build one takes as long as to execute it
INSERT_ANSWER = insert(t.answers)
# (who writes it, whether it had ended before, its conversation, in whose list that is)
FINISHING = (
    select(
        t.answers.c.writer,
        t.answers.c.finished_at,
        t.turns.c.conversation_id,
        t.conversations.c.user_id,
    )
    .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
    .outerjoin(t.conversations, t.conversations.c.id == t.turns.c.conversation_id)
    .where(t.answers.c.id == bindparam("this"))
)
# A continued answer keeps its first token's time
FINISH = (
    update(t.answers)
    .where(t.answers.c.id == bindparam("this"))
    .values(
        first_token_at=func.coalesce(
            t.answers.c.first_token_at, bindparam("first_token", None, Float)
        )
    )
)


class AnswerStore:
    """Stores turns and answers, and reads them.

    `writer` is the id of this process. An answer that streams belongs to the process that began or
    continued it: where several share the database, none of them writes another's.
    """

    def __init__(self, database: Database, group: GroupCommit) -> None:
        self._database = database
        self._group = group
        self.writer = new_id()

    # Writing

    def add_turn(self, **asked: Unpack[AskedTurn]) -> Turn:
        """Store what a person asked; raises the errors of `new_turn` and `UnstoredTurn.add`."""
        new = new_turn(**asked)
        self._group.run(new.add)
        return new.turn

    def begin_answer(
        self,
        turn: str | UnstoredTurn,
        *,
        base_digest: str,
        adapter_digest: str | None,
        sampling: Mapping[str, Any],
        seed: int,
        shown: bool = True,
    ) -> str:
        """Store that an answer to a stored turn, or to a new one, is being made; returns its id.

        Its conversation shows it from now on, unless `shown` is False. Raises the errors of
        `UnstoredTurn.add`.
        """
        answer_id = new_id()
        turn_id = turn.turn.id if isinstance(turn, UnstoredTurn) else turn
        row = {
            "id": answer_id,
            "turn_id": turn_id,
            "status": "streaming",
            "text": "",
            "thought": "",
            "complete": 0,
            "base_digest": base_digest,
            "adapter_digest": adapter_digest,
            "sampling": dict(sampling),
            "seed": seed,
            "created_at": time.time(),
            "writer": self.writer,
        }

        def begin(connection: Connection) -> None:
            if isinstance(turn, UnstoredTurn):
                turn.add(connection)
            connection.execute(INSERT_ANSWER, row)
            if shown:
                show_new_answer(connection, turn_id, answer_id)

        self._group.run(begin)
        return answer_id

    def save_partial(
        self,
        answer_id: str,
        text: str,
        thought: str = "",
        sampling: Mapping[str, Any] | None = None,
    ) -> bool:
        """Keep what has been made so far, in case the process dies; `sampling` as at its end.

        Returns whether the answer shall go on: its person may have stopped it on another server,
        continued it there while this one was thought dead, or had it erased.
        """
        drawn = {} if sampling is None else {"sampling": dict(sampling)}
        values = {"text": text, "thought": thought, **drawn}
        mine = self._is_mine(answer_id)
        saving = update(t.answers).where(mine, t.answers.c.status == "streaming").values(**values)

        def save(connection: Connection) -> bool:
            connection.execute(saving)
            wanted = connection.execute(select(t.answers.c.stop_wanted).where(mine))
            return wanted.scalar_one_or_none() == 0

        return self._group.run(save)

    def finish_answer(
        self,
        answer_id: str,
        *,
        status: AnswerStatus,
        text: str,
        thought: str = "",
        complete: bool = False,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
        error: str | None = None,
        first_token_at: float | None = None,
        sampling: Mapping[str, Any] | None = None,
    ) -> None:
        """Store an answer's end. When this returns, the page may be told that it has ended.

        `thought` keeps its `<think>` tags, where it had them, so that it can be written again.
        `sampling` is given where more is known of how it was drawn than at its beginning.
        A NUL that a model wrote becomes U+FFFD: no database or snapshot could hold it. Raises
        `Conflict` where another server has continued the answer meanwhile.
        """
        text, thought = (part.replace("\x00", "\ufffd") for part in (text, thought))
        values = {
            "status": status,
            "text": text,
            "thought": thought,
            "complete": int(complete),
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "error": error,
            "finished_at": time.time(),
            "first_token": first_token_at,
        }
        if sampling is not None:
            values["sampling"] = dict(sampling)

        def finish(connection: Connection) -> None:
            row = connection.execute(FINISHING, {"this": answer_id}).one_or_none()
            if row is None:  # erased meanwhile
                return
            writer, ended_before, conversation_id, listed_for = row
            if writer not in (None, self.writer):
                raise Conflict("another server has continued this answer")
            if ended_before is not None:
                mark_stale(connection, [conversation_id])
            connection.execute(FINISH, {"this": answer_id, **values})
            if listed_for is not None:
                add_document(connection, conversation_id, listed_for, text, answer_id=answer_id)

        self._group.run(finish)

    # Reading

    def answer(self, answer_id: str, user_id: str) -> StoredAnswer:
        """An answer of this user's."""
        with self._database.read() as connection:
            own_turn(connection, answer_id, user_id)
            return read_stored_answer(connection, answer_id)

    def first_answer(self, conversation_id: str) -> StoredAnswer | None:
        """The answer that was begun first in a conversation, whoever's it is; None before it."""
        query = (
            select(*answer_columns(StoredAnswer))
            .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
            .where(t.turns.c.conversation_id == conversation_id)
            .order_by(t.answers.c.created_at, t.answers.c.id)
            .limit(1)
        )
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else StoredAnswer(*row)

    def turn_of(self, answer_id: str, user_id: str) -> Turn:
        """The turn an answer of this user's replies to."""
        with self._database.read() as connection:
            return Turn(**own_turn(connection, answer_id, user_id))

    def history(self, answer_id: str | None, user_id: str) -> list[Message]:
        """Questions and answers from the conversation's beginning up to and with an answer."""
        with self._database.read() as connection:
            return read_history(answer_id, partial(self._exchange, connection, user_id))

    def shown_prompt(
        self, answer_id: str, user_id: str, examples: Sequence[Example] = ()
    ) -> tuple[Turn, tuple[Message, ...]]:
        """The turn of an answer of this user's, and the messages the model was shown for it.

        `examples` are those from feedback to show again: see `FeedbackExamples.still_used`.
        """
        with self._database.read() as connection:
            turn = Turn(**own_turn(connection, answer_id, user_id))
            query = select(t.turns.c.prompt).where(t.turns.c.id == turn.id)
            stored = connection.execute(query).scalar_one()
            template = read_templates(connection)[turn.template_hash]
            read = partial(self._exchange, connection, user_id)
            parent = turn.parent_answer_id
            prompt = rebuild_prompt(stored, template, turn.question, parent, read)
        return turn, template.with_examples(prompt, examples)

    def texts(self, answer_ids: Iterable[str]) -> dict[str, str]:
        """The texts of answers of any user, by id: for the operator."""
        with self._database.read() as connection:
            return read_answer_texts(connection, answer_ids)

    def _is_mine(self, answer_id: str) -> ColumnElement[bool]:
        """A condition: the row is this answer, of this process or of before writers were noted."""
        writer = t.answers.c.writer
        return and_(t.answers.c.id == answer_id, or_(writer == self.writer, writer.is_(None)))

    def _exchange(self, connection: Connection, user_id: str, answer_id: str) -> Exchange:
        turn = own_turn(connection, answer_id, user_id)
        query = select(t.answers.c.text).where(t.answers.c.id == answer_id)
        text = connection.execute(query).scalar_one()
        return Exchange(turn["question"], text, turn["parent_answer_id"])


def read_stored_answer(connection: Connection, answer_id: str) -> StoredAnswer:
    """Read an answer, whoever's it is."""
    query = select(*answer_columns(StoredAnswer)).where(t.answers.c.id == answer_id)
    return StoredAnswer(*connection.execute(query).one())
