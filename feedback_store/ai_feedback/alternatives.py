"""Alternatives: answers that the engine writes to be compared, for prompts answered badly.

A thumb down says that an answer is bad and not which is better; two answers of the same policy to
the same prompt, compared by a person, say so. This module finds the prompts and stores the answers.
An alternative is an answer to the same turn, hidden from the person's chat until they have compared
it, and goes with its conversation wherever that goes. Knows tables; knows no engine.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, insert, or_, select

from engine.prompts.terms import tokens
from feedback_store.examples.rules import USABLE
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.statements import current_statements, read_judgements
from feedback_store.storage.turns import new_id, own_turn

FEW_WORDS = (
    12  # a correction of so few says what was wrong and hardly what is right; our own choice
)
NEWEST_STATEMENTS = 5_000  # looked through at a time; older ones had their nights


@dataclass(frozen=True, slots=True)
class BadAnswer:
    """An answer that somebody disliked or corrected in few words, and its turn."""

    id: str
    turn_id: str
    user_id: str  # who asked
    mode: str
    thinking: bool | None


@dataclass(frozen=True, slots=True)
class Alternative:
    """An answer that the engine has written in the place of a bad one.

    `logprob` is the policy's mean log-probability of a token, in nats.
    """

    text: str
    thought: str
    complete: bool
    seed: int
    logprob: float
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class ChosenCouple:
    """The two of several alternatives that people are asked about, by their indices.

    `preference` is the predicted probability that the first one is preferred.
    """

    first: int
    second: int
    preference: float


class Alternatives:
    """Finds answers that want alternatives, and stores these. `refusing` returns the people whose
    words may not be used."""

    def __init__(self, database: Database, refusing: Callable[[], Collection[str]]) -> None:
        self._database = database
        self._refusing = refusing

    def wanted(self, limit: int) -> list[BadAnswer]:
        """Answers without alternatives, those judged last first, of people who consent.

        An answer is bad if somebody's current word on it is a thumb down without a correction, or
        a correction of at most `FEW_WORDS` words. None of a turn that has alternatives, none with a
        report on it or unfinished, none of a conversation that is deleted.
        """
        refusing = self._refusing()
        with self._database.read() as connection:
            rows = {
                row.turn_id: row
                for row in _judged_lately(connection)
                if row.asked_by not in refusing
            }
            said: dict[str, list[Any]] = defaultdict(list)
            judgements = read_judgements(connection, t.turns.c.id.in_(list(rows)))
            for event in current_statements(judgements):
                if event["user_id"] not in refusing:
                    said[event["answer_id"]].append(event)
        bad = [row for row in rows.values() if _is_bad(said[row.id])]
        return [
            BadAnswer(row.id, row.turn_id, row.asked_by, row.mode, row.sampling.get("thinking"))
            for row in bad[:limit]
        ]

    def store(
        self,
        bad: BadAnswer,
        alternatives: Sequence[Alternative],
        couple: ChosenCouple | None,
        *,
        base_digest: str,
        adapter_digest: str | None,
        sampling: dict[str, Any],
    ) -> None:
        """Store alternatives and, unless all read the same, the comparison that waits.

        One transaction. Raises `UnknownId` where the answer was erased meanwhile.
        """
        now = time.time()
        made = {**sampling, "alternative_to": bad.id}
        entropy = -sum(each.logprob for each in alternatives) / max(1, len(alternatives))
        with self._database.write() as connection:
            own_turn(connection, bad.id, bad.user_id)
            ids = [new_id() for _ in alternatives]
            for answer_id, each in zip(ids, alternatives, strict=True):
                connection.execute(
                    insert(t.answers).values(
                        id=answer_id,
                        turn_id=bad.turn_id,
                        status="done",
                        text=each.text,
                        thought=each.thought,
                        complete=int(each.complete),
                        base_digest=base_digest,
                        adapter_digest=adapter_digest,
                        sampling=made,
                        seed=each.seed,
                        prompt_tokens=each.prompt_tokens,
                        completion_tokens=each.completion_tokens,
                        created_at=now,
                        finished_at=now,
                    )
                )
                row = {"answer_id": answer_id, "of_answer_id": bad.id, "shown": 0}
                connection.execute(insert(t.alternatives).values(created_at=now, **row))
            if couple is not None:
                connection.execute(
                    insert(t.waiting_comparisons).values(
                        turn_id=bad.turn_id,
                        first_answer_id=ids[couple.first],
                        second_answer_id=ids[couple.second],
                        preference=couple.preference,
                        entropy=entropy,
                        created_at=now,
                    )
                )

    def hide(self, answer_id: str, user_id: str) -> None:
        """Keep a second answer that was not offered out of what the person sees.

        Raises `UnknownId` where it was erased meanwhile.
        """
        with self._database.write() as connection:
            own_turn(connection, answer_id, user_id)
            row = {"answer_id": answer_id, "of_answer_id": answer_id, "shown": 0}
            connection.execute(insert(t.alternatives).values(created_at=time.time(), **row))

    def count(self) -> int:
        """The number of alternatives of bad answers that were written and are still there."""
        given = t.alternatives.c
        with self._database.read() as connection:
            query = (
                select(func.count())
                .select_from(t.alternatives)
                .where(given.answer_id != given.of_answer_id)
            )
            return int(connection.execute(query).scalar_one())


def _judged_lately(connection: Connection) -> list[Any]:
    """Usable answers with a recent thumb down or correction and no alternatives, newest first."""
    events, answers, turns = t.events.c, t.answers.c, t.turns.c
    newest = select(func.coalesce(func.max(events.id), 0)).scalar_subquery()
    # An answer of which the engine wrote nothing new has alternatives, too: those that it wrote
    written = (
        select(answers.turn_id)
        .join(t.alternatives, t.alternatives.c.of_answer_id == answers.id)
        .where(t.alternatives.c.answer_id != answers.id)
        .scalar_subquery()
    )
    query = (
        select(
            answers.id,
            answers.turn_id,
            answers.sampling,
            turns.user_id.label("asked_by"),
            turns.mode,
        )
        .join(t.events, events.answer_id == answers.id)
        .join(t.turns, turns.id == answers.turn_id)
        .outerjoin(t.conversations, t.conversations.c.id == turns.conversation_id)
        .where(
            or_(and_(events.kind == "vote", events.vote == -1), events.kind == "correction"),
            events.id > newest - NEWEST_STATEMENTS,
            answers.status.in_(USABLE),
            t.conversations.c.deleted_at.is_(None),
            answers.turn_id.not_in(written),
        )
        .order_by(events.id)
    )
    newest_first = list(connection.execute(query).all())[::-1]
    return list({row.id: row for row in newest_first}.values())


def _is_bad(said: Sequence[Any]) -> bool:
    """Return whether current statements about one answer ask for alternatives."""
    if any(event["kind"] == "flag" for event in said):
        return False
    corrected = {event["user_id"] for event in said if event["kind"] == "correction"}
    return any(
        (event["kind"] == "vote" and event["vote"] == -1 and event["user_id"] not in corrected)
        or (event["kind"] == "correction" and len(tokens(event["correction"])) <= FEW_WORDS)
        for event in said
    )
