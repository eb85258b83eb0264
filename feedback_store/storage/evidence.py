"""Reading evidence: conversations that somebody judged, a batch at a time.

Reads only; the whole store is read in bounded memory. Knows tables and templates; knows nothing of
what evidence is good for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, RowMapping, func, select, true

from engine.messages import Message
from engine.prompts.modes import PromptTemplate, template_from_dict
from feedback_store.records import CurrentVote, PromptEvidence, WrittenAnswer
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database, batches
from feedback_store.storage.prompts import Exchange, rebuild_prompt
from feedback_store.storage.statements import (
    choice_of,
    correction_of,
    current_statements,
    judged_conversations,
    read_judgements,
    vote_of,
)

CONVERSATIONS_AT_ONCE = 200
IS_COMPLETE = (t.answers.c.complete == 1).label("complete")
EVIDENCE_TURN_COLUMNS = t.columns(
    t.turns, "id conversation_id parent_answer_id user_id question mode template_hash prompt"
)


def answer_columns(kind: type[WrittenAnswer]) -> list[ColumnElement[Any]]:
    """The columns of an answer, in the order of a value type's fields."""
    names = kind.__dataclass_fields__
    return [IS_COMPLETE if name == "complete" else t.answers.c[name] for name in names]


class EvidenceReader:
    """Reads the evidence of a database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def all(self) -> Iterator[PromptEvidence]:
        """Read all evidence, conversation by conversation."""
        with self.database.read() as connection:
            yield from read_evidence(connection, judged_conversations(connection, true()))

    def of(self, conversation_ids: Iterable[str]) -> Iterator[PromptEvidence]:
        """The evidence of given conversations."""
        with self.database.read() as connection:
            yield from read_evidence(connection, sorted(conversation_ids))

    def judged_since(self, event_id: int) -> set[str]:
        """The conversations with judgements newer than an event."""
        with self.database.read() as connection:
            return set(judged_conversations(connection, t.events.c.id > event_id))

    def conversations_of(self, user_ids: Iterable[str]) -> set[str]:
        """The conversations in which users asked or judged."""
        found: set[str] = set()
        with self.database.read() as connection:
            for some in batches(set(user_ids)):
                asked = select(t.turns.c.conversation_id).where(t.turns.c.user_id.in_(some))
                found.update(connection.execute(asked).scalars())
                found.update(judged_conversations(connection, t.events.c.user_id.in_(some)))
        return found

    def shared_votes(self) -> list[tuple[str, CurrentVote]]:
        """Current thumbs on answers that several users voted on, each with its conversation."""
        shared = (
            select(t.events.c.answer_id)
            .where(t.events.c.kind == "vote")
            .group_by(t.events.c.answer_id)
            .having(func.count(t.events.c.user_id.distinct()) > 1)
        )
        query = (
            select(t.events, t.turns.c.conversation_id)
            .join(t.answers, t.answers.c.id == t.events.c.answer_id)
            .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
            .where(t.events.c.kind == "vote", t.events.c.answer_id.in_(shared))
            .order_by(t.events.c.id)
        )
        with self.database.read() as connection:
            current = current_statements(connection.execute(query).mappings())
        return [(row["conversation_id"], vote_of(row)) for row in current if row["vote"]]

    def last_erasure(self) -> int:
        """The newest erasure's number; 0 where there is none."""
        with self.database.read() as connection:
            return last_erasure(connection)


def read_evidence(
    connection: Connection, conversation_ids: Sequence[str], until: int | None = None
) -> Iterator[PromptEvidence]:
    """The evidence of given conversations, in their order; `until`: said up to an event."""
    templates = read_templates(connection)
    for begin in range(0, len(conversation_ids), CONVERSATIONS_AT_ONCE):
        batch = conversation_ids[begin : begin + CONVERSATIONS_AT_ONCE]
        found = _load(connection, batch, until)
        for conversation_id in batch:
            yield from found[conversation_id].evidence(templates)


def read_templates(connection: Connection) -> dict[str, PromptTemplate]:
    """Every prompt template ever used, by its hash."""
    rows = connection.execute(select(t.templates.c.hash, t.templates.c.definition))
    return {row.hash: template_from_dict(row.definition) for row in rows}


def read_answer_texts(connection: Connection, answer_ids: Iterable[str]) -> dict[str, str]:
    """The texts of answers, by id."""
    found: dict[str, str] = {}
    for some in batches(set(answer_ids)):
        query = select(t.answers.c.id, t.answers.c.text).where(t.answers.c.id.in_(some))
        found |= {row.id: row.text for row in connection.execute(query)}
    return found


def last_event(connection: Connection) -> int:
    """The newest event's number; 0 where there is none."""
    return int(connection.execute(select(func.coalesce(func.max(t.events.c.id), 0))).scalar_one())


def last_erasure(connection: Connection) -> int:
    """The newest erasure's number; 0 where there is none."""
    query = select(func.coalesce(func.max(t.erasures.c.id), 0))
    return int(connection.execute(query).scalar_one())


@dataclass
class _Conversation:
    """The rows of one conversation; judgements in the order of their numbers."""

    turns: dict[str, Row[Any]] = field(default_factory=dict)
    answers: dict[str, WrittenAnswer] = field(default_factory=dict)
    judgements: list[RowMapping] = field(default_factory=list)

    def evidence(self, templates: Mapping[str, PromptTemplate]) -> Iterator[PromptEvidence]:
        """The evidence of each prompt of which somebody judged an answer, in the order asked."""
        said: dict[str, list[RowMapping]] = defaultdict(list)
        for event in current_statements(self.judgements):
            said[event["turn_id"]].append(event)
            if event["kind"] == "choice":  # the other answer may be one to the same words of a turn
                said[self.answers[event["right_answer_id"]].turn_id] += []
        turns_of: dict[tuple[str, str, tuple[Message, ...]], list[str]] = defaultdict(list)
        for turn_id, turn in self.turns.items():
            if turn_id in said:
                prompt = self._prompt(turn, templates[turn.template_hash])
                turns_of[turn.user_id, turn.template_hash, prompt].append(turn_id)
        for (_, _, prompt), turn_ids in turns_of.items():
            events = [event for turn_id in turn_ids for event in said[turn_id]]
            events.sort(key=lambda event: int(event["id"]))
            yield self._evidence_of(prompt, turn_ids, events)

    def _evidence_of(
        self, prompt: tuple[Message, ...], turn_ids: Sequence[str], events: Sequence[RowMapping]
    ) -> PromptEvidence:
        first = self.turns[turn_ids[0]]
        return PromptEvidence(
            conversation_id=first.conversation_id,
            user_id=first.user_id,
            template_hash=first.template_hash,
            mode=first.mode,
            prompt=prompt,
            answers=tuple(a for a in self.answers.values() if a.turn_id in turn_ids),
            votes=tuple(vote_of(e) for e in events if e["kind"] == "vote" and e["vote"]),
            corrections=tuple(correction_of(e) for e in events if e["kind"] == "correction"),
            choices=tuple(choice_of(e) for e in events if e["kind"] == "choice"),
            flagged=frozenset(e["answer_id"] for e in events if e["kind"] == "flag"),
        )

    def _prompt(self, turn: Row[Any], template: PromptTemplate) -> tuple[Message, ...]:
        parent = turn.parent_answer_id
        return rebuild_prompt(turn.prompt, template, turn.question, parent, self._exchange)

    def _exchange(self, answer_id: str) -> Exchange:
        answer = self.answers[answer_id]
        asked = self.turns[answer.turn_id]
        return Exchange(asked.question, answer.text, asked.parent_answer_id)


def _load(
    connection: Connection, conversation_ids: Sequence[str], until: int | None
) -> dict[str, _Conversation]:
    """The rows of a batch of conversations: its turns, answers and judgements."""
    found = {conversation_id: _Conversation() for conversation_id in conversation_ids}
    in_batch = t.turns.c.conversation_id.in_(conversation_ids)
    turns = (
        select(*EVIDENCE_TURN_COLUMNS).where(in_batch).order_by(t.turns.c.created_at, t.turns.c.id)
    )
    of_turn: dict[str, _Conversation] = {}
    for turn in connection.execute(turns).all():
        of_turn[turn.id] = found[turn.conversation_id]
        of_turn[turn.id].turns[turn.id] = turn
    answers = (
        select(*answer_columns(WrittenAnswer))
        .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
        .where(in_batch)
        .order_by(t.answers.c.created_at, t.answers.c.id)
    )
    for row in connection.execute(answers).all():
        answer = WrittenAnswer(*row)
        of_turn[answer.turn_id].answers[answer.id] = answer
    for event in read_judgements(connection, in_batch, until):
        of_turn[event["turn_id"]].judgements.append(event)
    return found
