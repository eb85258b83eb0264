"""The examples in view of a question: the person's own, then those shared with everybody.

A turn stores references to the examples that it was shown. Training sees the prompts without them,
so that a model learns to do without. Knows whom an example is shown to; how one is made stands in
`example_pool`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from sqlalchemy import Connection, delete, select

from engine.errors import UnknownId
from engine.messages import clean_text
from engine.prompts.examples import SHOWN
from engine.prompts.terms import tokens
from feedback_store.personal.example_pool import FeedbackExample, fetch_examples
from feedback_store.personal.own_examples import OwnExamples, removed_by
from feedback_store.personal.shared_examples import SharedExamples
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database, insert_once


class FeedbackExamples:
    """The examples of every person's questions; `own`, None: nobody's own are shown."""

    def __init__(self, database: Database, own: OwnExamples | None, shared: SharedExamples) -> None:
        self._database = database
        self._own = own
        self._shared = shared

    def similar(
        self, user_id: str, question: str, *, with_thought: bool = False, most: int = SHOWN
    ) -> tuple[FeedbackExample, ...]:
        """The examples that are like a person's question, the most similar of their own last, next
        to the question; shared ones fill the places that their own leave.

        Of examples that ask the same the newest; `with_thought`: of those with a thought.
        """
        found: list[FeedbackExample] = []
        asked: set[frozenset[str]] = set()
        for example in self._ranked(user_id, question):
            words = frozenset(tokens(example.question))
            if words in asked or (with_thought and not example.thought):
                continue
            asked.add(words)
            found.append(example)
            if len(found) == most:
                break
        return tuple(reversed(found))

    def used(self, user_id: str, answer_id: str) -> tuple[FeedbackExample, ...]:
        """The examples in view when an answer of theirs was made, as far as they may be seen.

        Of their own, all that are still known; of shared ones, those that still are. Raises
        `UnknownId` for an answer that is not this person's.
        """
        with self._database.read() as connection:
            references = _references(connection, user_id, answer_id)
            if not references:
                return ()
            event_ids = [int(reference.partition(":")[2]) for reference in references]
            own = fetch_examples(connection, event_ids, t.turns.c.user_id == user_id)
        known = {example.reference: example for example in (*self._shared.examples(), *own)}
        return tuple(known[reference] for reference in references if reference in known)

    def still_used(self, user_id: str, answer_id: str) -> tuple[FeedbackExample, ...]:
        """The examples of `used` that may be shown again: not removed, replaced or refused."""
        if not (used := self.used(user_id, answer_id)):
            return ()
        removed = self.removed(user_id)
        own = () if self._own is None else self._own.of(user_id)
        usable = {each.reference for each in own}
        usable |= {each.reference for each in self._shared.examples() if each.id not in removed}
        return tuple(example for example in used if example.reference in usable)

    def remove(self, user_id: str, answer_id: str) -> None:
        """Never show an answer to a person as an example again, not even a new correction of it.

        Of an answer of their own, nobody else is shown it either. Raises `UnknownId` for an answer
        that is neither theirs nor shared.
        """
        row = {"user_id": user_id, "answer_id": clean_text(answer_id), "created_at": time.time()}
        with self._database.write() as connection:
            own = (
                select(t.answers.c.id)
                .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
                .where(t.answers.c.id == answer_id, t.turns.c.user_id == user_id)
            )
            shared = t.shared_examples.c.answer_id
            either = own.union(select(shared).where(shared == answer_id))
            if connection.execute(either).one_or_none() is None:
                raise UnknownId(f"no answer {answer_id[:80]!r}")
            insert_once(connection, t.unused_examples, row)

    def restore(self, user_id: str, answer_id: str) -> None:
        """Take `remove` back."""
        which = t.unused_examples.c
        with self._database.write() as connection:
            connection.execute(
                delete(t.unused_examples).where(
                    which.user_id == user_id, which.answer_id == clean_text(answer_id)
                )
            )

    def removed(self, user_id: str) -> frozenset[str]:
        """The answers that a person does not want as examples."""
        with self._database.read() as connection:
            return removed_by(connection, user_id)

    def _ranked(self, user_id: str, question: str) -> Iterator[FeedbackExample]:
        """All that are like a question, the best first; shared ones only where one asks on."""
        if self._own is not None:
            yield from self._own.ranked(user_id, question)
        if shared := list(self._shared.ranked(question)):
            removed = self.removed(user_id)
            yield from (example for example in shared if example.id not in removed)


def _references(connection: Connection, user_id: str, answer_id: str) -> list[str]:
    """The references that the turn of a person's answer stores; raises `UnknownId`."""
    query = (
        select(t.turns.c.example_ids)
        .join(t.answers, t.answers.c.turn_id == t.turns.c.id)
        .where(t.answers.c.id == clean_text(answer_id), t.turns.c.user_id == user_id)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise UnknownId(f"no answer {answer_id[:80]!r}")
    return list(row.example_ids or ())
