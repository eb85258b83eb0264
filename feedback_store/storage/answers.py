"""Turns and answers: writing and reading them.

Each write is durable when its method returns; those that come at once share a transaction, since
eight people's questions would otherwise wait for sixteen syncs of the disk in a row. Ids are
checked against their user: an id that is unknown and one that is somebody else's get the same
`UnknownId`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, insert, or_, select, update

from engine.errors import Conflict, UnknownId
from engine.messages import Message, clean_text, require_text
from engine.prompts.examples import Example
from engine.prompts.modes import PromptTemplate
from feedback_store.records import AnswerStatus, StoredAnswer, Turn
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database, insert_once
from feedback_store.storage.evidence import answer_columns, read_answer_texts, read_templates
from feedback_store.storage.group_commit import GroupCommit
from feedback_store.storage.kept_changes import note_continued
from feedback_store.storage.listing import (
    continued_conversations,
    index_answers,
    list_turn,
    require_own_or_new,
    show_new_answer,
)
from feedback_store.storage.prompts import Exchange, read_history, rebuild_prompt
from feedback_store.storage.stale_conversations import mark_stale

MAX_ID_CHARS = 64
TURN_COLUMNS = [t.turns.c[name] for name in Turn.__dataclass_fields__]


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


def _shown_columns(
    prompt: Sequence[Message] | None,
    example_ids: Sequence[str],
    passages: Sequence[Mapping[str, Any]] | None,
) -> dict[str, Any]:
    """Return the columns of a turn that say what its prompt showed."""
    return {
        "prompt": None if prompt is None else [message.as_dict() for message in prompt],
        "example_ids": list(example_ids) or None,
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

    def add_turn(
        self,
        *,
        user_id: str,
        question: str,
        template: PromptTemplate,
        conversation_id: str,
        parent_answer_id: str | None = None,
        prompt: Sequence[Message] | None = None,
        example_ids: Sequence[str] = (),
        passages: Sequence[Mapping[str, Any]] | None = None,
        listed: bool = True,
    ) -> Turn:
        """Store what a person asked.

        `prompt` is given only where the messages shown are not the template over the chain of
        parent answers; examples from feedback are no part of it, `example_ids` refers to them.
        `passages` of documents are those that the prompt shows; None: it was asked without any.
        Whoever goes on with a changed answer prefers it: see `kept_changes`.
        `listed`: in the person's list of conversations, and found in a search. Raises `UnknownId`
        for a parent that is not this user's, in this conversation, and for a conversation that is
        another's or was deleted.
        """
        require_text(question)
        clean_text(conversation_id, what="conversation's id", limit_chars=MAX_ID_CHARS)
        turn = Turn(
            new_id(),
            conversation_id,
            parent_answer_id,
            user_id,
            question,
            template.mode,
            template.hash,
        )
        shown = _shown_columns(prompt, example_ids, passages)

        def add(connection: Connection) -> None:
            if listed:
                require_own_or_new(connection, conversation_id, user_id)
            if parent_answer_id is not None:
                _require_in_conversation(connection, parent_answer_id, user_id, conversation_id)
                note_continued(connection, parent_answer_id, user_id)
            insert_template(connection, template)
            now = time.time()
            connection.execute(insert(t.turns).values(created_at=now, **t.row_of(turn), **shown))
            if listed:
                list_turn(connection, turn, now)

        self._group.run(add)
        return turn

    def begin_answer(
        self,
        turn_id: str,
        *,
        base_digest: str,
        adapter_digest: str | None,
        sampling: Mapping[str, Any],
        seed: int,
        shown: bool = True,
    ) -> str:
        """Store that an answer is being made; returns its id.

        Its conversation shows it from now on, unless `shown` is False.
        """
        answer_id = new_id()
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
            connection.execute(insert(t.answers).values(row))
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
        }
        if sampling is not None:
            values["sampling"] = dict(sampling)
        if first_token_at is not None:  # a continued answer keeps its first one
            values["first_token_at"] = func.coalesce(t.answers.c.first_token_at, first_token_at)
        this = t.answers.c.id == answer_id

        def finish(connection: Connection) -> None:
            writer = connection.execute(select(t.answers.c.writer).where(this)).scalar()
            if writer not in (None, self.writer):
                raise Conflict("another server has continued this answer")
            mark_stale(connection, continued_conversations(connection, [answer_id]))
            connection.execute(update(t.answers).where(this).values(values))
            index_answers(connection, [answer_id])

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
