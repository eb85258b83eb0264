"""The store: turns, answers and feedback events in, evidence out.

Each method is one transaction, durable when it returns. Ids are checked against their user: an
id that is unknown and one that is somebody else's get the same `UnknownId`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import (
    Connection,
    FromClause,
    and_,
    func,
    insert,
    or_,
    select,
    update,
)

from engine.errors import Conflict, InvalidInput, UnknownId
from engine.messages import Message, clean_text, require_text
from engine.prompts.examples import Example
from engine.prompts.modes import PromptTemplate
from feedback_store.records import (
    BAD_REASONS,
    CHOICES,
    GOOD_REASONS,
    AnswerStatus,
    Choice,
    Comparison,
    ImportedTurn,
    StoredAnswer,
    Turn,
    Vote,
)
from feedback_store.storage import tables as t
from feedback_store.storage.counters import Tally
from feedback_store.storage.database import Database, insert_once
from feedback_store.storage.events import add_event, event_values
from feedback_store.storage.evidence import answer_columns, read_templates, read_texts
from feedback_store.storage.group_commit import GroupCommit
from feedback_store.storage.import_writer import add_conversations, add_imported
from feedback_store.storage.kept_changes import note_continued, note_liked
from feedback_store.storage.listing import continued, index_answers, list_turn, show_new_answer
from feedback_store.storage.prompts import Exchange, read_history, rebuild_prompt
from feedback_store.storage.stale_conversations import mark_stale

Noted = Literal["regeneration", "copy", "flag"]
REASONS_OF: Mapping[int, tuple[str, ...]] = {1: GOOD_REASONS, -1: BAD_REASONS, 0: ()}
MAX_COMMENT_CHARS = 4_000
MAX_ID_CHARS = 64
TURN_COLUMNS = [t.turns.c[name] for name in Turn.__dataclass_fields__]


def new_id() -> str:
    """A fresh random id."""
    return uuid.uuid4().hex


class FeedbackStore:
    """Everything people asked, got and said."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._group = GroupCommit(database)
        self._tally = Tally(database)
        database.migrate(
            Path(__file__).with_name("migrations"), version_table="alembic_version_feedback"
        )

    # Conversations

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
        listed: bool = True,
    ) -> Turn:
        """Store what a person asked.

        `prompt` is given only where the messages shown are not the template over the chain of
        parent answers; the person's own examples are no part of it, `example_ids` refers to them.
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
        with self._database.write() as connection:
            if parent_answer_id is not None:
                parent = self._own_turn(connection, parent_answer_id, user_id)
                if parent["conversation_id"] != conversation_id:
                    raise UnknownId(f"no answer {parent_answer_id[:80]!r} in this conversation")
                note_continued(connection, parent_answer_id, user_id)
            _insert_template(connection, template)
            row = {name: getattr(turn, name) for name in Turn.__dataclass_fields__}
            row["prompt"] = None if prompt is None else [m.as_dict() for m in prompt]
            row["example_ids"] = list(example_ids) or None
            now = time.time()
            connection.execute(insert(t.turns).values(created_at=now, **row))
            if listed:
                list_turn(connection, turn, now)
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
        with self._database.write() as connection:
            connection.execute(
                insert(t.answers).values(
                    id=answer_id,
                    turn_id=turn_id,
                    status="streaming",
                    text="",
                    thought="",
                    complete=0,
                    base_digest=base_digest,
                    adapter_digest=adapter_digest,
                    sampling=dict(sampling),
                    seed=seed,
                    created_at=time.time(),
                )
            )
            if shown:
                show_new_answer(connection, turn_id, answer_id)
        return answer_id

    def reopen_answer(self, answer_id: str, user_id: str) -> StoredAnswer:
        """Have an answer that ended early go on; returns what it was.

        `save_partial` and `finish_answer` then take the whole of it. Raises `Conflict` for one that
        is being made, or that the model ended itself.
        """
        answers = t.answers.c
        ended_early = or_(
            answers.status.in_(("stopped", "aborted", "failed")),
            and_(answers.status == "done", answers.complete == 0),
        )
        with self._database.write() as connection:
            conversation_id = self._own_turn(connection, answer_id, user_id)["conversation_id"]
            answer = _answer(connection, answer_id)
            reopened = connection.execute(
                update(t.answers)
                .where(answers.id == answer_id, ended_early)
                .values(status="streaming", error=None)
            )
            if reopened.rowcount == 0:
                state = "is still being made" if answer.status == "streaming" else "has its end"
                raise Conflict(f"the answer {state}; it cannot be continued")
            mark_stale(connection, [conversation_id])
        return answer

    def save_partial(self, answer_id: str, text: str, thought: str = "") -> None:
        """Keep what has been made so far, in case the process dies."""
        with self._database.write() as connection:
            connection.execute(
                update(t.answers)
                .where(t.answers.c.id == answer_id, t.answers.c.status == "streaming")
                .values(text=text, thought=thought)
            )

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
        """Store an answer's end. When this returns, its last words may be shown, and found.

        `thought` keeps its `<think>` tags, where it had them, so that it can be written again.
        `sampling` is given where more is known of how it was drawn than at its beginning.
        A NUL that a model wrote becomes U+FFFD: no database or snapshot could hold it.
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
        this = t.answers.c.id == answer_id
        with self._database.write() as connection:
            if first_token_at is not None:  # a continued answer keeps its first one
                first = func.coalesce(t.answers.c.first_token_at, first_token_at)
                values["first_token_at"] = first
            mark_stale(connection, continued(connection, [answer_id]))
            connection.execute(update(t.answers).where(this).values(values))
            index_answers(connection, [answer_id])

    def abort_unfinished(self) -> int:
        """Mark answers that a dead process left streaming; returns how many."""
        with self._database.write() as connection:
            streaming = t.answers.c.status == "streaming"
            broken = connection.execute(select(t.answers.c.id).where(streaming)).scalars().all()
            mark_stale(connection, continued(connection, broken))
            connection.execute(
                update(t.answers).where(streaming).values(status="aborted", finished_at=time.time())
            )
            index_answers(connection, broken)
            return len(broken)

    def answer(self, answer_id: str, user_id: str) -> StoredAnswer:
        """An answer of this user's."""
        with self._database.read() as connection:
            self._own_turn(connection, answer_id, user_id)
            return _answer(connection, answer_id)

    def turn_of(self, answer_id: str, user_id: str) -> Turn:
        """The turn an answer of this user's replies to."""
        with self._database.read() as connection:
            return Turn(**self._own_turn(connection, answer_id, user_id))

    def history(self, answer_id: str | None, user_id: str) -> list[Message]:
        """Questions and answers from the conversation's beginning up to and with an answer."""
        with self._database.read() as connection:
            return read_history(answer_id, partial(self._exchange, connection, user_id))

    def shown_prompt(
        self, answer_id: str, user_id: str, own: Sequence[Example] = ()
    ) -> tuple[Turn, tuple[Message, ...]]:
        """The turn of an answer of this user's, and the messages the model was shown for it.

        `own` are the examples of theirs to show again: see `OwnExamples.still_used`.
        """
        with self._database.read() as connection:
            turn = Turn(**self._own_turn(connection, answer_id, user_id))
            query = select(t.turns.c.prompt).where(t.turns.c.id == turn.id)
            stored = connection.execute(query).scalar_one()
            template = read_templates(connection)[turn.template_hash]
            read = partial(self._exchange, connection, user_id)
            parent = turn.parent_answer_id
            prompt = rebuild_prompt(stored, template, turn.question, parent, read)
        return turn, template.with_examples(prompt, own)

    def texts(self, answer_ids: Iterable[str]) -> dict[str, str]:
        """What answers say, whoever's they are: for the operator."""
        with self._database.read() as connection:
            return read_texts(connection, answer_ids)

    # Feedback

    def vote(
        self,
        answer_id: str,
        user_id: str,
        vote: Vote,
        *,
        reasons: Sequence[str] = (),
        comment: str = "",
        idempotency_key: str | None = None,
    ) -> None:
        """Thumb up (+1), down (-1) or cleared (0), and why; a user's last vote counts.

        Of an answer that was made from another one by a change, a thumb also says whether the
        change was an improvement: see `kept_changes`.
        """
        if vote not in REASONS_OF:
            raise InvalidInput("a vote is 1 (up), -1 (down) or 0 (cleared)")
        if unknown := set(reasons) - set(REASONS_OF[vote]):
            known = ", ".join(REASONS_OF[vote]) or "none"
            raise InvalidInput(f"{min(unknown)[:40]!r} is no reason for this vote; known: {known}")
        clean_text(comment, what="comment", limit_chars=MAX_COMMENT_CHARS)
        self._add_event(
            "vote",
            answer_id,
            user_id,
            idempotency_key,
            vote=vote,
            reasons=sorted(set(reasons)) or None,
            comment=comment or None,
            then=partial(note_liked, liked=vote == 1),
        )

    def correct(
        self, answer_id: str, user_id: str, text: str, *, idempotency_key: str | None = None
    ) -> None:
        """The answer as the user would have had it."""
        require_text(text, what="correction")
        self._add_event("correction", answer_id, user_id, idempotency_key, correction=text)

    def note(
        self, answer_id: str, user_id: str, kind: Noted, *, idempotency_key: str | None = None
    ) -> None:
        """That a user copied an answer, asked for another one, or flagged it as not to be used."""
        self._add_event(kind, answer_id, user_id, idempotency_key)

    def compare(self, left_answer_id: str, right_answer_id: str, user_id: str) -> Comparison:
        """Two answers to one turn of this user's are shown side by side."""
        with self._database.write() as connection:
            left = self._own_turn(connection, left_answer_id, user_id)
            right = self._own_turn(connection, right_answer_id, user_id)
            if left["id"] != right["id"] or left_answer_id == right_answer_id:
                raise InvalidInput("a comparison is between two answers to the same question")
            comparison = Comparison(
                new_id(), left["id"], left_answer_id, right_answer_id, user_id, time.time()
            )
            connection.execute(insert(t.comparisons).values(asdict(comparison)))
        return comparison

    def choose(
        self,
        comparison_id: str,
        user_id: str,
        choice: Choice,
        *,
        idempotency_key: str | None = None,
    ) -> None:
        """Which of the two is better; a user's last choice counts."""
        if choice not in CHOICES:
            raise InvalidInput(f"a choice is one of {', '.join(CHOICES)}")
        values = event_values("choice", user_id, idempotency_key, choice=choice)

        def work(connection: Connection) -> None:
            if not add_event(connection, t.comparisons, clean_text(comparison_id), values):
                own = select(t.comparisons.c.id).where(
                    t.comparisons.c.id == comparison_id, t.comparisons.c.user_id == user_id
                )
                if connection.execute(own).one_or_none() is None:
                    raise UnknownId(f"no comparison {comparison_id[:80]!r}")

        self._group.run(work)

    def add_imported(
        self, turns: Iterable[ImportedTurn], template: PromptTemplate, user_id: str
    ) -> int:
        """Store turns from elsewhere, in one transaction; returns how many.

        Turns of one conversation, or of one prompt where they name none, share a conversation
        here, so that they fall on the same side of a snapshot's split.
        """
        with self._database.write() as connection:
            _insert_template(connection, template)
            return add_imported(connection, turns, template, user_id)

    def add_conversations(
        self, turns: Iterable[ImportedTurn], template: PromptTemplate, user_id: str
    ) -> int:
        """Store a person's conversations from elsewhere in their list, in one transaction.

        What this person imported before is not stored again. `template` adds nothing to a prompt.
        Returns how many conversations have something new.
        """
        with self._database.write() as connection:
            _insert_template(connection, template)
            return add_conversations(connection, turns, template, user_id)

    # Counts

    def event_count(self) -> int:
        """Feedback events ever stored; grows with each one."""
        with self._database.read() as connection:
            return _count(connection, t.events)

    def counts(self) -> dict[str, int]:
        """How many turns, answers and statements there are now, by name."""
        return self._tally.counts()

    # Helpers

    def _add_event(
        self,
        kind: str,
        answer_id: str,
        user_id: str,
        idempotency_key: str | None,
        then: Callable[[Connection, str, str], None] | None = None,
        **said: Any,
    ) -> None:
        """Add an event about an answer of this user's, unless the same was sent before.

        `then` is called with connection, answer and user where it was added.
        """
        values = event_values(kind, user_id, idempotency_key, **said)

        def work(connection: Connection) -> None:
            if not add_event(connection, t.answers, clean_text(answer_id), values):
                self._own_turn(connection, answer_id, user_id)  # a replay, or not this user's
            elif then is not None:
                then(connection, answer_id, user_id)

        self._group.run(work)

    def _own_turn(self, connection: Connection, answer_id: str, user_id: str) -> dict[str, Any]:
        query = (
            select(*TURN_COLUMNS)
            .join(t.answers, t.answers.c.turn_id == t.turns.c.id)
            .where(t.answers.c.id == clean_text(answer_id), t.turns.c.user_id == user_id)
        )
        row = connection.execute(query).mappings().one_or_none()
        if row is None:
            raise UnknownId(f"no answer {answer_id[:80]!r}")
        return dict(row)

    def _exchange(self, connection: Connection, user_id: str, answer_id: str) -> Exchange:
        turn = self._own_turn(connection, answer_id, user_id)
        query = select(t.answers.c.text).where(t.answers.c.id == answer_id)
        text = connection.execute(query).scalar_one()
        return Exchange(turn["question"], text, turn["parent_answer_id"])


def _insert_template(connection: Connection, template: PromptTemplate) -> None:
    row = {"hash": template.hash, "definition": template.as_dict()}
    insert_once(connection, t.templates, row)


def _answer(connection: Connection, answer_id: str) -> StoredAnswer:
    query = select(*answer_columns(StoredAnswer)).where(t.answers.c.id == answer_id)
    return StoredAnswer(*connection.execute(query).one())


def _count(connection: Connection, source: FromClause) -> int:
    return int(connection.execute(select(func.count()).select_from(source)).scalar_one())
