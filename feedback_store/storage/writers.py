"""Running answers of several servers on one store: whose they are, and what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Collection

from sqlalchemy import and_, not_, or_, select, update

from engine.errors import Conflict
from feedback_store.records import StoredAnswer
from feedback_store.storage import tables as t
from feedback_store.storage.answers import read_stored_answer
from feedback_store.storage.database import Database
from feedback_store.storage.listing import continued_conversations, index_answers
from feedback_store.storage.stale_conversations import mark_stale
from feedback_store.storage.turns import own_turn


class AnswerWriters:
    """The processes that write the running answers of a store; `writer` is the id of this one."""

    def __init__(self, database: Database, writer: str) -> None:
        self._database = database
        self.writer = writer

    def reopen_answer(self, answer_id: str, user_id: str) -> StoredAnswer:
        """Reopen an answer that ended early, for this process to write; returns what it was.

        `save_partial` and `finish_answer` then take the whole of it. Raises `Conflict` for one that
        is being made, or that the model ended itself.
        """
        answers = t.answers.c
        ended_early = or_(
            answers.status.in_(("stopped", "aborted", "failed")),
            and_(answers.status == "done", answers.complete == 0),
        )
        with self._database.write() as connection:
            conversation_id = own_turn(connection, answer_id, user_id)["conversation_id"]
            answer = read_stored_answer(connection, answer_id)
            reopened = connection.execute(
                update(t.answers)
                .where(answers.id == answer_id, ended_early)
                .values(status="streaming", error=None, writer=self.writer, stop_wanted=0)
            )
            if reopened.rowcount == 0:
                state = "is still being made" if answer.status == "streaming" else "has its end"
                raise Conflict(f"the answer {state}; it cannot be continued")
            mark_stale(connection, [conversation_id])
        return answer

    def want_stop(self, answer_id: str, user_id: str) -> None:
        """Ask the server that writes an answer of this user's to stop it, within seconds."""
        with self._database.write() as connection:
            own_turn(connection, answer_id, user_id)
            connection.execute(
                update(t.answers)
                .where(t.answers.c.id == answer_id, t.answers.c.status == "streaming")
                .values(stop_wanted=1)
            )

    def streaming_elsewhere(self, conversation_id: str, user_id: str) -> list[str]:
        """Answers in a conversation of this user's that other servers are writing."""
        query = (
            select(t.answers.c.id)
            .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
            .where(
                t.turns.c.conversation_id == conversation_id,
                t.turns.c.user_id == user_id,
                t.answers.c.status == "streaming",
                t.answers.c.writer != self.writer,
            )
            .order_by(t.answers.c.created_at, t.answers.c.id)
        )
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())

    def abort_unfinished(self, running: Collection[str] = ()) -> int:
        """Mark answers that a dead process left streaming; returns how many.

        `running` are the writers that are alive, whose answers stay as they are.
        """
        with self._database.write() as connection:
            alive = t.answers.c.writer.in_(running)
            streaming = and_(
                t.answers.c.status == "streaming", or_(t.answers.c.writer.is_(None), not_(alive))
            )
            broken = connection.execute(select(t.answers.c.id).where(streaming)).scalars().all()
            mark_stale(connection, continued_conversations(connection, broken))
            connection.execute(
                update(t.answers).where(streaming).values(status="aborted", finished_at=time.time())
            )
            index_answers(connection, broken)
            return len(broken)
