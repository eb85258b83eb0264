"""The store: turns, answers and feedback events in, evidence out.

Each method is one transaction, durable when it returns. Ids are checked against their user: an
id that is unknown and one that is somebody else's get the same `UnknownId`.
"""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RowMapping, column, insert, select, table, update
from sqlalchemy.dialects import postgresql, sqlite

from engine.errors import InvalidInput, UnknownId
from engine.messages import Message, clean_text, messages_from_dicts, require_text
from engine.prompts.modes import PromptTemplate, template_from_dict
from engine.storage import digest_json
from feedback_store import tables as t
from feedback_store.database import Database
from feedback_store.records import Answer, AnswerStatus, Evidence, JudgedPair, Turn, Vote

current_feedback = table("current_feedback", *(column(c.name, c.type) for c in t.events.columns))
ANSWER_COLUMNS = [t.answers.c[name] for name in Answer.__dataclass_fields__]
TURN_COLUMNS = [t.turns.c[name] for name in Turn.__dataclass_fields__]


def new_id() -> str:
    """A fresh random id."""
    return uuid.uuid4().hex


class FeedbackStore:
    """Everything people asked, got and said."""

    def __init__(self, database: Database) -> None:
        self._database = database
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
    ) -> Turn:
        """Store what a person asked.

        `prompt` is given only where the messages shown are not the template over the chain of
        parent answers. Raises `UnknownId` for a parent that is not this user's, in this
        conversation.
        """
        require_text(question)
        turn = Turn(
            new_id(), conversation_id, parent_answer_id, user_id, question,
            template.mode, template.hash,
        )  # fmt: skip
        with self._database.write() as connection:
            if parent_answer_id is not None:
                parent = self._own_turn(connection, parent_answer_id, user_id)
                if parent["conversation_id"] != conversation_id:
                    raise UnknownId(f"no answer {parent_answer_id[:80]!r} in this conversation")
            _insert_once(
                connection, t.templates, {"hash": template.hash, "definition": template.as_dict()}
            )
            row = {name: getattr(turn, name) for name in Turn.__dataclass_fields__}
            row["prompt"] = None if prompt is None else [m.as_dict() for m in prompt]
            connection.execute(insert(t.turns).values(created_at=time.time(), **row))
        return turn

    def begin_answer(
        self,
        turn_id: str,
        *,
        base_digest: str,
        adapter_digest: str | None,
        sampling: Mapping[str, Any],
        seed: int,
    ) -> str:
        """Store that an answer is being made; returns its id."""
        answer_id = new_id()
        with self._database.write() as connection:
            connection.execute(
                insert(t.answers).values(
                    id=answer_id, turn_id=turn_id, status="streaming", text="", thought="",
                    complete=0, base_digest=base_digest, adapter_digest=adapter_digest,
                    sampling=dict(sampling), seed=seed, created_at=time.time(),
                )
            )  # fmt: skip
        return answer_id

    def save_partial(self, answer_id: str, text: str) -> None:
        """Keep what has been made so far, in case the process dies."""
        with self._database.write() as connection:
            connection.execute(
                update(t.answers)
                .where(t.answers.c.id == answer_id, t.answers.c.status == "streaming")
                .values(text=text)
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
    ) -> None:
        """Store an answer's end. When this returns, its last words may be shown.

        A NUL that a model wrote becomes U+FFFD: no database or snapshot could hold it.
        """
        text, thought = (part.replace("\x00", "\ufffd") for part in (text, thought))
        with self._database.write() as connection:
            connection.execute(
                update(t.answers)
                .where(t.answers.c.id == answer_id)
                .values(
                    status=status, text=text, thought=thought, complete=int(complete),
                    prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, error=error,
                    finished_at=time.time(),
                )
            )  # fmt: skip

    def abort_unfinished(self) -> int:
        """Mark answers that a dead process left streaming; returns how many."""
        with self._database.write() as connection:
            done = connection.execute(
                update(t.answers)
                .where(t.answers.c.status == "streaming")
                .values(status="aborted", finished_at=time.time())
            )
            return done.rowcount

    def answer(self, answer_id: str, user_id: str) -> Answer:
        """An answer of this user's."""
        with self._database.read() as connection:
            self._own_turn(connection, answer_id, user_id)
            query = select(*ANSWER_COLUMNS).where(t.answers.c.id == answer_id)
            return _answer(connection.execute(query).mappings().one())

    def turn_of(self, answer_id: str, user_id: str) -> Turn:
        """The turn an answer of this user's replies to."""
        with self._database.read() as connection:
            return Turn(**self._own_turn(connection, answer_id, user_id))

    def history(self, answer_id: str | None, user_id: str) -> list[Message]:
        """Questions and answers from the conversation's beginning up to and with an answer."""
        messages: list[Message] = []
        with self._database.read() as connection:
            while answer_id is not None:
                turn = self._own_turn(connection, answer_id, user_id)
                query = select(t.answers.c.text).where(t.answers.c.id == answer_id)
                text = connection.execute(query).scalar_one()
                messages += [Message("assistant", text), Message("user", turn["question"])]
                answer_id = turn["parent_answer_id"]
        return messages[::-1]

    def shown_prompt(self, answer_id: str, user_id: str) -> tuple[Turn, tuple[Message, ...]]:
        """The turn of an answer of this user's, and the messages the model was shown for it."""
        turn = self.turn_of(answer_id, user_id)
        with self._database.read() as connection:
            query = select(t.turns.c.prompt).where(t.turns.c.id == turn.id)
            shown = connection.execute(query).scalar_one()
            template = self._templates(connection)[turn.template_hash]
        return turn, self._prompt(turn, shown, template)

    # Feedback

    def vote(
        self, answer_id: str, user_id: str, vote: Vote, *, idempotency_key: str | None = None
    ) -> None:
        """Thumb up (+1), down (-1) or cleared (0); a user's last vote counts."""
        if vote not in (-1, 0, 1):
            raise InvalidInput("a vote is 1 (up), -1 (down) or 0 (cleared)")
        self._add_event(answer_id, user_id, idempotency_key, kind="vote", vote=vote)

    def correct(
        self, answer_id: str, user_id: str, text: str, *, idempotency_key: str | None = None
    ) -> None:
        """The answer as the user would have had it."""
        require_text(text, what="correction")
        self._add_event(answer_id, user_id, idempotency_key, kind="correction", correction=text)

    def add_judged_pairs(
        self,
        pairs: Iterable[JudgedPair],
        template: PromptTemplate,
        user_id: str,
    ) -> None:
        """Store preferences from elsewhere, in one transaction.

        Each becomes a turn with two answers and opposite votes. Pairs of one prompt share a
        conversation, so that they fall on the same side of a snapshot's split.
        """
        now = time.time()
        with self._database.write() as connection:
            _insert_once(
                connection, t.templates, {"hash": template.hash, "definition": template.as_dict()}
            )
            for pair in pairs:
                shown = [message.as_dict() for message in pair.prompt]
                turn_id = new_id()
                connection.execute(
                    insert(t.turns).values(
                        id=turn_id, conversation_id=f"import-{digest_json(shown)[7:39]}",
                        user_id=user_id, question=pair.prompt[-1].content, mode=template.mode,
                        template_hash=template.hash, prompt=shown, created_at=now,
                    )
                )  # fmt: skip
                for text, complete, vote in (
                    (pair.better, pair.better_complete, 1),
                    (pair.worse, pair.worse_complete, -1),
                ):
                    answer_id = new_id()
                    connection.execute(
                        insert(t.answers).values(
                            id=answer_id, turn_id=turn_id, status="done", text=text, thought="",
                            complete=int(complete), base_digest="imported", sampling={}, seed=0,
                            created_at=now, finished_at=now,
                        )
                    )  # fmt: skip
                    connection.execute(
                        insert(t.events).values(
                            idempotency_key=new_id(), kind="vote", answer_id=answer_id,
                            user_id=user_id, vote=vote, created_at=now,
                        )
                    )  # fmt: skip

    # Evidence

    def evidence(self) -> Iterator[Evidence]:
        """Each turn that has feedback, with its answers and what people say of them now."""
        with self._database.read() as connection:
            feedback = connection.execute(
                select(current_feedback).order_by(current_feedback.c.id)
            ).mappings()
            by_answer: dict[str, list[RowMapping]] = defaultdict(list)
            for event in feedback:
                by_answer[event["answer_id"]].append(event)
            templates = self._templates(connection)
            query = (
                select(*TURN_COLUMNS, t.turns.c.prompt)
                .where(
                    t.turns.c.id.in_(
                        select(t.answers.c.turn_id).join(
                            current_feedback, current_feedback.c.answer_id == t.answers.c.id
                        )
                    )
                )
                .order_by(t.turns.c.created_at, t.turns.c.id)
            )
            for row in connection.execute(query).mappings().all():
                yield self._evidence_of(connection, row, templates, by_answer)

    def event_count(self) -> int:
        """Feedback events ever stored; grows with each one."""
        with self._database.read() as connection:
            return _count(connection, t.events)

    def counts(self) -> dict[str, int]:
        """How many turns, answers, votes and corrections there are now."""
        with self._database.read() as connection:
            view = current_feedback.c
            votes = select(view.id).where(view.kind == "vote", view.vote != 0)
            return {
                "turns": _count(connection, t.turns),
                "answers": _count(connection, t.answers),
                "votes": _count(connection, votes.subquery()),
                "votes_up": _count(connection, votes.where(view.vote == 1).subquery()),
                "votes_down": _count(connection, votes.where(view.vote == -1).subquery()),
                "corrections": _count(
                    connection, select(view.id).where(view.kind == "correction").subquery()
                ),
                "comparisons": 0,
            }

    # Helpers

    def _add_event(
        self, answer_id: str, user_id: str, idempotency_key: str | None, **values: Any
    ) -> None:
        with self._database.write() as connection:
            self._own_turn(connection, answer_id, user_id)
            _insert_once(
                connection,
                t.events,
                {
                    "idempotency_key": clean_text(idempotency_key or new_id(), limit_chars=64),
                    "answer_id": answer_id,
                    "user_id": user_id,
                    "created_at": time.time(),
                    **values,
                },
            )

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

    def _evidence_of(
        self,
        connection: Connection,
        row: RowMapping,
        templates: Mapping[str, PromptTemplate],
        by_answer: Mapping[str, Sequence[RowMapping]],
    ) -> Evidence:
        turn = Turn(**{name: row[name] for name in Turn.__dataclass_fields__})
        query = (
            select(*ANSWER_COLUMNS)
            .where(t.answers.c.turn_id == turn.id)
            .order_by(t.answers.c.created_at, t.answers.c.id)
        )
        answers = tuple(_answer(a) for a in connection.execute(query).mappings())
        events = sorted((e for a in answers for e in by_answer[a.id]), key=lambda e: int(e["id"]))
        return Evidence(
            turn=turn,
            prompt=self._prompt(turn, row["prompt"], templates[turn.template_hash]),
            answers=answers,
            votes=tuple(_said(events, "vote")),
            corrections=tuple(_said(events, "correction")),
        )

    def _prompt(
        self, turn: Turn, shown: list[dict[str, str]] | None, template: PromptTemplate
    ) -> tuple[Message, ...]:
        """The messages the model was shown."""
        if shown is not None:
            return messages_from_dicts(shown)
        return template.build(self.history(turn.parent_answer_id, turn.user_id), turn.question)

    def _templates(self, connection: Connection) -> dict[str, PromptTemplate]:
        rows = connection.execute(select(t.templates)).mappings()
        return {row["hash"]: template_from_dict(row["definition"]) for row in rows}


def _answer(row: RowMapping) -> Answer:
    return Answer(**{**row, "complete": bool(row["complete"])})


def _said(events: Iterable[RowMapping], kind: str) -> Iterator[tuple[int, str, str, Any]]:
    """The events of one kind, as (event id, answer id, user id, value)."""
    for event in events:
        if event["kind"] == kind:
            yield event["id"], event["answer_id"], event["user_id"], event[kind]


def _insert_once(connection: Connection, into: Any, row: Mapping[str, Any]) -> None:
    """Insert a row unless its unique key is there already: a replay changes nothing."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(dialect.insert(into).values(**row).on_conflict_do_nothing())


def _count(connection: Connection, source: Any) -> int:
    from sqlalchemy import func

    return int(connection.execute(select(func.count()).select_from(source)).scalar_one())
