"""Evidence out of the tables: conversations that somebody judged, a batch at a time.

Reads only; the whole store is read in bounded memory. Knows tables and templates; knows nothing of
what evidence is good for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, RowMapping, func, select, true

from engine.messages import Message, messages_from_dicts
from engine.prompts.modes import PromptTemplate, template_from_dict
from feedback_store.records import (
    Answer,
    CurrentChoice,
    CurrentCorrection,
    CurrentVote,
    PromptEvidence,
)
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database

BATCH_CONVERSATIONS = 200
IDS_A_QUERY = 5_000  # PostgreSQL takes 65,535 values in one query
JUDGEMENTS = ("vote", "correction", "choice", "flag")
IS_COMPLETE = (t.answers.c.complete == 1).label("complete")


def answer_columns(kind: type[Answer]) -> list[ColumnElement[Any]]:
    """What to select of an answer, in the order of a value type's fields."""
    names = kind.__dataclass_fields__
    return [IS_COMPLETE if name == "complete" else t.answers.c[name] for name in names]


class EvidenceReader:
    """What people say now of what they were shown."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def last_event(self) -> int:
        """The newest event's number; 0 where there is none."""
        with self.database.read() as connection:
            return last_event(connection)

    def all(self) -> Iterator[PromptEvidence]:
        """Everything, conversation by conversation."""
        with self.database.read() as connection:
            yield from read_evidence(connection, judged_conversations(connection, true()))

    def of(self, conversation_ids: Iterable[str]) -> Iterator[PromptEvidence]:
        """The evidence of given conversations."""
        with self.database.read() as connection:
            yield from read_evidence(connection, sorted(conversation_ids))

    def judged_since(self, event_id: int) -> tuple[set[str], int]:
        """Conversations with events newer than one seen, and the newest event now."""
        with self.database.read() as connection:
            newest = last_event(connection)
            return set(judged_conversations(connection, t.events.c.id > event_id)), newest

    def conversations_of(self, user_ids: Iterable[str]) -> set[str]:
        """Conversations in which these users asked or judged."""
        users = sorted(user_ids)
        found: set[str] = set()
        with self.database.read() as connection:
            for begin in range(0, len(users), IDS_A_QUERY):
                batch = users[begin : begin + IDS_A_QUERY]
                asked = select(t.turns.c.conversation_id).where(t.turns.c.user_id.in_(batch))
                found.update(connection.execute(asked).scalars())
                found.update(judged_conversations(connection, t.events.c.user_id.in_(batch)))
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
            current = {
                (row["answer_id"], row["user_id"]): row
                for row in connection.execute(query).mappings()
            }
        return [(row["conversation_id"], vote_of(row)) for row in current.values() if row["vote"]]

    def last_erasure(self) -> int:
        """The newest erasure's number; 0 where there is none."""
        with self.database.read() as connection:
            return last_erasure(connection)


def read_evidence(
    connection: Connection, conversation_ids: Sequence[str], until: int | None = None
) -> Iterator[PromptEvidence]:
    """The evidence of given conversations, in their order; `until`: said up to an event."""
    templates = read_templates(connection)
    for begin in range(0, len(conversation_ids), BATCH_CONVERSATIONS):
        batch = conversation_ids[begin : begin + BATCH_CONVERSATIONS]
        found = _load(connection, batch, until)
        for conversation_id in batch:
            yield from found[conversation_id].evidence(templates)


def read_templates(connection: Connection) -> dict[str, PromptTemplate]:
    """Every prompt template ever used, by its hash."""
    rows = connection.execute(select(t.templates.c.hash, t.templates.c.definition))
    return {row.hash: template_from_dict(row.definition) for row in rows}


def read_texts(connection: Connection, answer_ids: Iterable[str]) -> dict[str, str]:
    """What answers say."""
    wanted = sorted(set(answer_ids))
    found: dict[str, str] = {}
    for begin in range(0, len(wanted), IDS_A_QUERY):
        batch = t.answers.c.id.in_(wanted[begin : begin + IDS_A_QUERY])
        rows = connection.execute(select(t.answers.c.id, t.answers.c.text).where(batch))
        found |= {row.id: row.text for row in rows}
    return found


@dataclass
class _Conversation:
    """The rows of one conversation."""

    turns: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    current: dict[tuple[Any, ...], RowMapping] = field(default_factory=dict)
    comparisons: dict[str, RowMapping] = field(default_factory=dict)

    def evidence(self, templates: Mapping[str, PromptTemplate]) -> Iterator[PromptEvidence]:
        """One for each prompt that somebody judged an answer to, in the order they were asked."""
        said: dict[str, list[RowMapping]] = defaultdict(list)
        for event in self.current.values():
            said[self._turn_of(event)].append(event)
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
            corrections=tuple(_correction(e) for e in events if e["kind"] == "correction"),
            choices=tuple(self._choice(e) for e in events if e["kind"] == "choice"),
            flagged=frozenset(e["answer_id"] for e in events if e["kind"] == "flag"),
        )

    def _turn_of(self, event: RowMapping) -> str:
        if event["comparison_id"] is not None:
            return str(self.comparisons[event["comparison_id"]]["turn_id"])
        return self.answers[event["answer_id"]].turn_id

    def _prompt(self, turn: Row[Any], template: PromptTemplate) -> tuple[Message, ...]:
        """The messages the model was shown."""
        if turn.prompt is not None:
            return messages_from_dicts(turn.prompt)
        history: list[Message] = []
        parent = turn.parent_answer_id
        while parent is not None:
            answer = self.answers[parent]
            asked = self.turns[answer.turn_id]
            history += [Message("assistant", answer.text), Message("user", asked.question)]
            parent = asked.parent_answer_id
        return template.build(history[::-1], turn.question)

    def _choice(self, event: RowMapping) -> CurrentChoice:
        comparison = self.comparisons[event["comparison_id"]]
        return CurrentChoice(
            event["id"],
            comparison["left_answer_id"],
            comparison["right_answer_id"],
            event["user_id"],
            event["choice"],
            event["created_at"],
        )


def _load(
    connection: Connection, conversation_ids: Sequence[str], until: int | None
) -> dict[str, _Conversation]:
    """Four queries for a batch: turns, answers, comparisons, events."""
    found = {conversation_id: _Conversation() for conversation_id in conversation_ids}
    in_batch = t.turns.c.conversation_id.in_(conversation_ids)
    turns = (
        select(
            t.turns.c.id,
            t.turns.c.conversation_id,
            t.turns.c.parent_answer_id,
            t.turns.c.user_id,
            t.turns.c.question,
            t.turns.c.mode,
            t.turns.c.template_hash,
            t.turns.c.prompt,
        )
        .where(in_batch)
        .order_by(t.turns.c.created_at, t.turns.c.id)
    )
    of_conversation: dict[str, _Conversation] = {}  # by the id of any row
    for turn in connection.execute(turns).all():
        conversation = found[turn.conversation_id]
        conversation.turns[turn.id] = turn
        of_conversation[turn.id] = conversation
    answers = (
        select(*answer_columns(Answer))
        .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
        .where(in_batch)
        .order_by(t.answers.c.created_at, t.answers.c.id)
    )
    for row in connection.execute(answers).all():
        answer = Answer(*row)
        of_conversation[answer.id] = of_conversation[answer.turn_id]
        of_conversation[answer.id].answers[answer.id] = answer
    comparisons = (
        select(t.comparisons).join(t.turns, t.turns.c.id == t.comparisons.c.turn_id).where(in_batch)
    )
    for compared in connection.execute(comparisons).mappings().all():
        of_conversation[compared["id"]] = of_conversation[compared["turn_id"]]
        of_conversation[compared["id"]].comparisons[compared["id"]] = compared
    for event in _events(connection, in_batch, until):
        key = event["answer_id"], event["comparison_id"], event["user_id"], event["kind"]
        of_conversation[event["answer_id"] or event["comparison_id"]].current[key] = event
    return found


def _events(
    connection: Connection, which: ColumnElement[bool], until: int | None
) -> list[RowMapping]:
    """Judgements, the oldest first, so that a later one takes an earlier one's place.

    The kinds are chosen here and not in the query, which would then read every vote there is.
    """
    about_answers = (
        select(t.events)
        .join(t.answers, t.answers.c.id == t.events.c.answer_id)
        .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
        .where(which)
    )
    about_comparisons = (
        select(t.events)
        .join(t.comparisons, t.comparisons.c.id == t.events.c.comparison_id)
        .join(t.turns, t.turns.c.id == t.comparisons.c.turn_id)
        .where(which)
    )
    rows = [
        *connection.execute(about_answers).mappings().all(),
        *connection.execute(about_comparisons).mappings().all(),
    ]
    said = [r for r in rows if r["kind"] in JUDGEMENTS and (until is None or r["id"] <= until)]
    return sorted(said, key=lambda r: int(r["id"]))


def last_event(connection: Connection) -> int:
    """The newest event's number; 0 where there is none."""
    return int(connection.execute(select(func.coalesce(func.max(t.events.c.id), 0))).scalar_one())


def last_erasure(connection: Connection) -> int:
    """The newest erasure's number; 0 where there is none."""
    query = select(func.coalesce(func.max(t.erasures.c.id), 0))
    return int(connection.execute(query).scalar_one())


def judged_conversations(connection: Connection, which: ColumnElement[bool]) -> list[str]:
    """Conversations with judgements of some sort, sorted."""
    about_answers = (
        select(t.turns.c.conversation_id)
        .join(t.answers, t.answers.c.turn_id == t.turns.c.id)
        .join(t.events, t.events.c.answer_id == t.answers.c.id)
        .where(which, t.events.c.kind.in_(JUDGEMENTS))
    )
    about_comparisons = (
        select(t.turns.c.conversation_id)
        .join(t.comparisons, t.comparisons.c.turn_id == t.turns.c.id)
        .join(t.events, t.events.c.comparison_id == t.comparisons.c.id)
        .where(which)
    )
    return sorted(connection.execute(about_answers.union(about_comparisons)).scalars())


def vote_of(event: RowMapping) -> CurrentVote:
    """An event of kind "vote" as a value."""
    return CurrentVote(
        event["id"],
        event["answer_id"],
        event["user_id"],
        event["vote"],
        event["created_at"],
        tuple(event["reasons"] or ()),
        event["comment"] or "",
    )


def _correction(event: RowMapping) -> CurrentCorrection:
    return CurrentCorrection(
        event["id"],
        event["answer_id"],
        event["user_id"],
        event["correction"],
        event["created_at"],
    )
