"""Examples that the operator approved: an answer that one person corrected or likes, for everybody.

An approval refers to an answer and holds for the words that it had then: a later correction, or a
liked answer that went on, is approved anew or shown to nobody else. It rests with its author's
consent, and when they take their thumb back, flag the answer, remove it from their examples or
delete its conversation. Knows approvals and consent; knows nothing of the people who ask.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, delete, insert, literal, select

from engine.errors import Conflict, UnknownId
from engine.messages import clean_text
from feedback_store.curation.decisions import Curation
from feedback_store.personal.example_pool import (
    MAX_EXAMPLES,
    ExamplePool,
    FeedbackExample,
    current_events,
    examine,
    fetch_examples,
)
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database

NOT_JUDGED = (
    "the answer is no example: the person who asked has neither liked nor corrected it, or wants it"
    " used no more"
)
AUTHOR_REFUSES = "the answer is no example: the person who asked does not consent to its use"
CHANGED = "the answer has other words than when it was approved; read it and approve it again"
_NONE = ExamplePool((), ())
_Version = list[tuple[int, float]]  # the statements that hold, and when each was approved


@dataclass(frozen=True, slots=True)
class Approval:
    """An approved answer, and the example that it makes now, or the reason why it makes none."""

    answer_id: str
    user_id: str  # the author: who asked, and judged the answer
    approved_at: float
    example: FeedbackExample | None
    refusal: str = ""


class SharedExamples:
    """The approved answers, as the operator decides about them and as questions see them."""

    def __init__(self, database: Database, curation: Curation) -> None:
        self._database = database
        self._curation = curation
        self._known: tuple[_Version, ExamplePool] = [], _NONE

    # For the operator

    def approve(self, answer_id: str) -> FeedbackExample:
        """Show an answer, in the words that it has now, as an example to everybody.

        Raises `UnknownId` for no answer, and `Conflict` for one that can be no example.
        """
        now = time.time()
        examined = self._examine({clean_text(answer_id): now})
        if not examined:
            raise UnknownId(f"no answer {answer_id[:80]!r}")
        (approval,) = examined
        if approval.example is None:
            raise Conflict(approval.refusal)
        shared = t.shared_examples
        with self._database.write() as connection:
            connection.execute(delete(shared).where(shared.c.answer_id == answer_id))
            # Of an answer that is still there: an erasure may have come between
            there = select(t.answers.c.id, literal(now)).where(t.answers.c.id == answer_id)
            connection.execute(insert(shared).from_select(["answer_id", "approved_at"], there))
        return approval.example

    def withdraw(self, answer_id: str) -> None:
        """Take an approval back; raises `UnknownId` where there is none."""
        this = t.shared_examples.c.answer_id == clean_text(answer_id)
        with self._database.write() as connection:
            if connection.execute(delete(t.shared_examples).where(this)).rowcount == 0:
                raise UnknownId(f"no approved answer {answer_id[:80]!r}")

    def approvals(self) -> list[Approval]:
        """All approvals, the newest first."""
        with self._database.read() as connection:
            approved = _approved(connection)
        return sorted(self._examine(approved), key=lambda each: (-each.approved_at, each.answer_id))

    def answer_ids(self) -> frozenset[str]:
        """The approved answers, whatever became of them."""
        with self._database.read() as connection:
            return frozenset(_approved(connection))

    # For questions

    def examples(self) -> tuple[FeedbackExample, ...]:
        """The examples that everybody is shown now."""
        return self._refreshed().examples

    def ranked(self, question: str) -> Iterator[FeedbackExample]:
        """The examples that are like a question, the most similar first."""
        return self._refreshed().ranked(question)

    def _refreshed(self) -> ExamplePool:
        """The pool of now; texts are read, and indexed, only where others hold than before."""
        with self._database.read() as connection:
            if not (approved := _approved(connection)):
                return _NONE
            among = t.events.c.answer_id.in_(select(t.shared_examples.c.answer_id))
            events = current_events(connection, among)
        consenting = self._curation.consenting({event["user_id"] for event in events})
        holding = [
            event
            for event in events
            if event["user_id"] in consenting and _has_words_of(event, approved)
        ][:MAX_EXAMPLES]
        version = [(event["id"], approved[event["answer_id"]]) for event in holding]
        known, pool = self._known
        if version != known:
            event_ids = [event["id"] for event in holding]
            with self._database.read() as connection:
                examples = fetch_examples(connection, event_ids, is_shared=True)
            pool = ExamplePool(event_ids, examples)
            self._known = version, pool
        return pool

    def _examine(self, approved: Mapping[str, float]) -> list[Approval]:
        """Approvals of answers at certain times; of answers that are unknown there is none."""
        with self._database.read() as connection:
            authors = _authors(connection, approved)
            current = current_events(connection, t.events.c.answer_id.in_(authors))
            events = {event["answer_id"]: event for event in current}
            found = examine(connection, [event["id"] for event in current], is_shared=True)
        consenting = self._curation.consenting(set(authors.values()))

        def made(answer_id: str, user_id: str) -> FeedbackExample | str:
            event = events.get(answer_id)
            if user_id not in consenting:
                return AUTHOR_REFUSES
            if event is None:
                return NOT_JUDGED
            return found[event["id"]] if _has_words_of(event, approved) else CHANGED

        approvals = []
        for answer_id, user_id in authors.items():
            about = answer_id, user_id, approved[answer_id]
            match made(answer_id, user_id):
                case str(refusal):
                    approvals.append(Approval(*about, None, refusal))
                case example:
                    approvals.append(Approval(*about, example))
        return approvals


def _approved(connection: Connection) -> dict[str, float]:
    """The time at which each answer was approved, in Unix seconds."""
    query = select(t.shared_examples.c.answer_id, t.shared_examples.c.approved_at)
    return {row.answer_id: row.approved_at for row in connection.execute(query)}


def _authors(connection: Connection, answer_ids: Collection[str]) -> dict[str, str]:
    """The people who asked for answers, by answer."""
    query = (
        select(t.answers.c.id, t.turns.c.user_id)
        .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
        .where(t.answers.c.id.in_(answer_ids))
    )
    return {row.id: row.user_id for row in connection.execute(query)}


def _has_words_of(event: RowMapping, approved: Mapping[str, float]) -> bool:
    """Return whether the words that a statement is about were there when they were approved."""
    written_at = event["created_at"] if event["kind"] == "correction" else event["finished_at"]
    return (written_at or 0.0) <= approved[event["answer_id"]]
