"""A person's own examples: their corrections and liked answers, shown to them alone.

A correction acts with the next question, long before anything is trained. Nobody's words are kept
twice for it: an example is read from the answer and the statement that it rests on, a turn stores
references to those it was shown, and what is erased is in no prompt any more. Training sees the
prompts without them, so that a model learns to do without.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import Connection, delete, func, select

from engine.errors import UnknownId
from engine.messages import clean_text, is_blank
from engine.prompts.examples import Example
from engine.prompts.reasoning import untagged
from engine.prompts.similarity import SHOWN, SimilarExamples, tokens
from feedback_store.curation.decisions import Curation
from feedback_store.examples.rules import USABLE
from feedback_store.storage import tables as t
from feedback_store.storage.answers import own_turn
from feedback_store.storage.database import Database, insert_once
from feedback_store.storage.statements import current_statements

MAX_EXAMPLES = 500  # of a person, the newest
MAX_EXAMPLE_CHARS = (
    2_000  # of question and answer; three longer ones would fill a small model's context
)
MAX_PEOPLE = 32  # whose examples are kept ready; one takes up to two megabytes
LEAST_WORDS_OF_A_FOLLOW_UP = 2  # "And now?" and "Shorter!" mean nothing without what came before
OWN_STATEMENTS = ("vote", "correction", "flag")
# Newest event, how many there are, answers that are removed, answers that are still being made
_Version = tuple[int, int, frozenset[str], frozenset[str]]


@dataclass(frozen=True, slots=True)
class OwnExample(Example):
    """An example that rests on one statement about one of the person's answers, whose id it has.

    The thought is "" where the answer has none, and of a correction: it led to the wrong answer.
    """

    id: str
    event_id: int
    source: Literal["correction", "like"]

    @property
    def reference(self) -> str:
        """The reference that a turn stores."""
        return f"{self.id}:{self.event_id}"


@dataclass(frozen=True, slots=True)
class _Pool:
    """One person's examples, and what they were when they were read."""

    version: object
    numbers: Sequence[int]  # of the events that they rest on
    examples: tuple[OwnExample, ...]
    selector: SimilarExamples


class OwnExamples:
    """The own examples of every person, each person's for that person alone."""

    def __init__(self, database: Database, curation: Curation) -> None:
        self._database = database
        self._curation = curation
        self._pools: OrderedDict[str, _Pool] = OrderedDict()  # the last used last
        self._lock = threading.Lock()

    def of(self, user_id: str) -> tuple[OwnExample, ...]:
        """A person's examples, the newest statement first; none without their consent."""
        pool = self._pool(user_id)
        return () if pool is None else pool.examples

    def similar(
        self, user_id: str, question: str, *, with_thought: bool = False, most: int = SHOWN
    ) -> tuple[OwnExample, ...]:
        """Their examples that are like a question, the most similar last, next to the question.

        Of examples that ask the same the newest; `with_thought`: of those with a thought.
        """
        pool = self._pool(user_id)
        if pool is None:
            return ()
        found: list[OwnExample] = []
        asked: set[frozenset[str]] = set()
        for at in pool.selector.ranked(question):
            example = pool.examples[at]
            words = frozenset(tokens(example.question))
            if words in asked or (with_thought and not example.thought):
                continue
            asked.add(words)
            found.append(example)
            if len(found) == most:
                break
        return tuple(reversed(found))

    def used(self, user_id: str, answer_id: str) -> tuple[OwnExample, ...]:
        """The examples in view when an answer of theirs was made, as far as they are still known.

        Raises `UnknownId` for an answer that is not this person's.
        """
        with self._database.read() as connection:
            query = (
                select(t.turns.c.example_ids)
                .join(t.answers, t.answers.c.turn_id == t.turns.c.id)
                .where(t.answers.c.id == clean_text(answer_id), t.turns.c.user_id == user_id)
            )
            row = connection.execute(query).one_or_none()
            if row is None:
                raise UnknownId(f"no answer {answer_id[:80]!r}")
            numbers = [int(reference.partition(":")[2]) for reference in row.example_ids or ()]
            return tuple(_read(connection, user_id, numbers))

    def still_used(self, user_id: str, answer_id: str) -> tuple[OwnExample, ...]:
        """The examples of `used` that may be shown again: not removed or replaced since."""
        if not (used := self.used(user_id, answer_id)):
            return ()
        usable = {example.reference for example in self.of(user_id)}
        return tuple(example for example in used if example.reference in usable)

    def remove(self, user_id: str, answer_id: str) -> None:
        """Never show an answer as an example again, not even a new correction of it.

        Raises `UnknownId` for an answer that is not this person's.
        """
        with self._database.write() as connection:
            own_turn(connection, answer_id, user_id)
            row = {"user_id": user_id, "answer_id": answer_id, "created_at": time.time()}
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
            return _removed(connection, user_id)

    def _pool(self, user_id: str) -> _Pool | None:
        """Their examples of now, read anew only where something changed; None without consent."""
        if not self._curation.consents(user_id):
            with self._lock:
                self._pools.pop(user_id, None)
            return None
        with self._lock:
            known = self._pools.pop(user_id, None)
        with self._database.read() as connection:
            version = _version(connection, user_id)
            if known is None or known.version != version:
                known = _refreshed(connection, user_id, version, known)
        with self._lock:
            self._pools[user_id] = known
            while len(self._pools) > MAX_PEOPLE:
                self._pools.popitem(last=False)
        return known


class NoOwnExamples:
    """Stands for `OwnExamples` where they are switched off: there are none."""

    def similar(
        self, _user_id: str, _question: str, *, with_thought: bool = False
    ) -> tuple[OwnExample, ...]:
        """No example."""
        return ()

    def still_used(self, _user_id: str, _answer_id: str) -> tuple[OwnExample, ...]:
        """No example."""
        return ()


def _version(connection: Connection, user_id: str) -> _Version:
    """The version of a person's examples: a statement adds to the newest number, an
    erasure takes from the count, since numbers are never given again, and what was said of an
    answer in the making counts from its end."""
    said = select(func.coalesce(func.max(t.events.c.id), 0), func.count(t.events.c.id))
    newest, count = connection.execute(said.where(t.events.c.user_id == user_id)).one()
    streaming = (
        select(t.answers.c.id)
        .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
        .where(t.answers.c.status == "streaming", t.turns.c.user_id == user_id)
    )
    unfinished = frozenset(connection.execute(streaming).scalars())
    return newest, count, _removed(connection, user_id), unfinished


def _removed(connection: Connection, user_id: str) -> frozenset[str]:
    query = select(t.unused_examples.c.answer_id).where(t.unused_examples.c.user_id == user_id)
    return frozenset(connection.execute(query).scalars())


def _refreshed(
    connection: Connection, user_id: str, version: _Version, known: _Pool | None
) -> _Pool:
    """The pool of a version. Texts are read, and indexed, only where others count than before."""
    numbers = _current(connection, user_id, version[2])
    if known is not None and known.numbers == numbers:
        return replace(known, version=version)
    examples = tuple(_read(connection, user_id, numbers))
    selector = SimilarExamples({"question": example.question} for example in examples)
    return _Pool(version, numbers, examples, selector)


def _current(connection: Connection, user_id: str, removed: Collection[str]) -> list[int]:
    """The newest events that may make examples, the newest first."""
    events = t.events.c
    query = (
        select(*t.columns(t.events, "id answer_id comparison_id user_id kind vote"))
        .join(t.answers, t.answers.c.id == events.answer_id)
        .where(
            events.user_id == user_id,
            events.kind.in_(OWN_STATEMENTS),
            t.answers.c.status != "streaming",
        )
        .order_by(events.id)
    )
    current = {
        (event["answer_id"], event["kind"]): event
        for event in current_statements(connection.execute(query).mappings())
    }
    numbers: dict[str, int] = {}
    for (answer_id, kind), event in current.items():
        out = answer_id in removed or (answer_id, "flag") in current
        if out or kind == "flag" or (kind == "vote" and event["vote"] != 1):
            continue
        if kind == "correction" or (answer_id, "correction") not in current:
            numbers[answer_id] = event["id"]
    return sorted(numbers.values(), reverse=True)[:MAX_EXAMPLES]


def _read(connection: Connection, user_id: str, numbers: Sequence[int]) -> list[OwnExample]:
    """The examples that events of these numbers make, in this order; what makes none is left out.

    Whose events and turns they are is asked again here, whatever a reference says.
    """
    query = (
        select(
            *t.columns(t.events, "id answer_id correction"),
            *t.columns(t.turns, "question parent_answer_id"),
            *t.columns(t.answers, "status text thought"),
        )
        .join(t.answers, t.answers.c.id == t.events.c.answer_id)
        .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
        .where(
            t.events.c.id.in_(numbers), t.events.c.user_id == user_id, t.turns.c.user_id == user_id
        )
    )
    found: dict[int, OwnExample] = {}
    for row in connection.execute(query):
        liked = row.correction is None
        # A correction stands for itself, whatever became of the answer that it is about
        if liked and row.status not in USABLE:
            continue
        answer = row.text if liked else row.correction.strip()
        chars = len(row.question) + len(answer)
        if chars > MAX_EXAMPLE_CHARS or is_blank(answer):
            continue
        is_first = row.parent_answer_id is None
        if not is_first and len(set(tokens(row.question))) < LEAST_WORDS_OF_A_FOLLOW_UP:
            continue
        thought = untagged(row.thought).strip() if liked else ""
        found[row.id] = OwnExample(
            row.question,
            answer,
            thought if chars + len(thought) <= MAX_EXAMPLE_CHARS else "",
            row.answer_id,
            row.id,
            "like" if liked else "correction",
        )
    return [found[number] for number in numbers if number in found]
