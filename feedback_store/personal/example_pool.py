"""Few-shot examples from feedback: answers that the person who asked corrected or likes.

An example is read from the answer and the statement that it rests on: no text is kept twice, and
what is erased is an example no more. Knows tables; knows nothing of consent and approval, nor of
the people whom an example is shown to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from sqlalchemy import ColumnElement, Connection, RowMapping, exists, select

from engine.messages import is_blank
from engine.prompts.examples import Example
from engine.prompts.reasoning import untagged
from engine.prompts.terms import tokens
from feedback_store.examples.rules import USABLE
from feedback_store.storage import tables as t
from feedback_store.storage.prompts import stored_with_tools
from feedback_store.storage.statements import current_statements

if TYPE_CHECKING:
    from engine.prompts.similarity import SimilarExamples

MAX_EXAMPLES = 500  # of a pool, the newest
# Of question and answer; three longer ones would fill a small model's context
MAX_EXAMPLE_CHARS = 2_000
LEAST_WORDS_OF_A_FOLLOW_UP = 2  # "And now?" and "Shorter!" mean nothing without what came before
STATEMENTS = ("vote", "correction", "flag")
BROKEN_OFF = "the answer is no example: it is empty or was broken off"
FROM_DOCUMENTS = "the answer is no example: it was made from documents"
WITH_TOOLS = "the answer is no example: its question was asked with tools"
FOLLOW_UP = "the answer is no example: its question means nothing without what was said before"


@dataclass(frozen=True, slots=True)
class FeedbackExample(Example):
    """An example that rests on one statement of the person who asked, about the answer `id`.

    The thought is "" where the answer has none, and of a correction: it led to the wrong answer.
    `is_shared`: it is shown since the operator shares it with everybody.
    """

    id: str
    event_id: int
    source: Literal["correction", "like"]
    is_shared: bool = False

    @property
    def reference(self) -> str:
        """The form in which a turn names the example."""
        return f"{self.id}:{self.event_id}"


class ExamplePool:
    """Examples, the newest statement first, with an index over their questions."""

    def __init__(self, event_ids: Sequence[int], examples: Sequence[FeedbackExample]) -> None:
        self.event_ids = event_ids  # also of the statements that make no example
        self.examples = tuple(examples)

    @cached_property
    def _selector(self) -> SimilarExamples:
        from engine.prompts.similarity import SimilarExamples  # with scipy, slow to import

        return SimilarExamples({"question": each.question} for each in self.examples)

    def ranked(self, question: str) -> Iterator[FeedbackExample]:
        """The examples that are like a question, the most similar first, of equals the newest."""
        return (self.examples[at] for at in self._selector.ranked(question))


def current_events(connection: Connection, which: ColumnElement[bool]) -> list[RowMapping]:
    """The statements among certain events that may make examples, the newest first.

    Of each answer there is one at most: its author's current correction, else their thumb up. None
    is about an answer that is still being made, that they flagged or removed from the examples, or
    whose conversation they deleted. A row has the event's columns `id`, `answer_id`, `user_id`,
    `kind` and `created_at`, and the answer's `finished_at`.
    """
    events, turns = t.events.c, t.turns.c
    removed = exists().where(
        t.unused_examples.c.answer_id == events.answer_id,
        t.unused_examples.c.user_id == events.user_id,
    )
    deleted = exists().where(
        t.conversations.c.id == turns.conversation_id, t.conversations.c.deleted_at.is_not(None)
    )
    query = (
        select(
            events.id,
            events.answer_id,
            events.comparison_id,
            events.user_id,
            events.kind,
            events.vote,
            events.correction,
            events.created_at,
            t.answers.c.finished_at,
        )
        .join(t.answers, t.answers.c.id == events.answer_id)
        .join(t.turns, turns.id == t.answers.c.turn_id)
        .where(
            which,
            events.user_id == turns.user_id,
            t.answers.c.status != "streaming",
            ~removed,
            ~deleted,
        )
        .order_by(events.id)
    )
    # The kinds are chosen here: in the query they would have SQLite read every vote there is
    rows = connection.execute(query).mappings()
    said = (event for event in rows if event["kind"] in STATEMENTS)
    current = {(event["answer_id"], event["kind"]): event for event in current_statements(said)}
    chosen: dict[str, RowMapping] = {}
    for (answer_id, kind), event in current.items():
        if (answer_id, "flag") in current or (kind == "vote" and event["vote"] != 1):
            continue
        if kind == "correction" or (answer_id, "correction") not in current:
            chosen[answer_id] = event
    return sorted(chosen.values(), key=lambda event: -int(event["id"]))


def fetch_examples(
    connection: Connection,
    event_ids: Sequence[int],
    *which: ColumnElement[bool],
    is_shared: bool = False,
) -> list[FeedbackExample]:
    """The examples that events of these numbers make, in this order; what makes none is left out.

    `which` restricts events and turns further.
    """
    found = examine(connection, event_ids, *which, is_shared=is_shared)
    made = (found.get(number) for number in event_ids)
    return [example for example in made if isinstance(example, FeedbackExample)]


def examine(
    connection: Connection,
    event_ids: Sequence[int],
    *which: ColumnElement[bool],
    is_shared: bool = False,
) -> dict[int, FeedbackExample | str]:
    """The example that each event makes, or the reason, a sentence, why it makes none."""
    query = (
        select(
            t.events.c.id,
            t.events.c.answer_id,
            t.events.c.correction,
            t.turns.c.question,
            t.turns.c.prompt,
            t.turns.c.passages,
            t.turns.c.parent_answer_id,
            t.answers.c.status,
            t.answers.c.text,
            t.answers.c.thought,
        )
        .join(t.answers, t.answers.c.id == t.events.c.answer_id)
        .join(t.turns, t.turns.c.id == t.answers.c.turn_id)
        .where(t.events.c.id.in_(event_ids), t.events.c.user_id == t.turns.c.user_id, *which)
    )
    rows = connection.execute(query).mappings()
    return {row["id"]: _example(row, is_shared) for row in rows}


def _example(row: RowMapping, is_shared: bool) -> FeedbackExample | str:
    liked, question = row["correction"] is None, row["question"]
    answer = row["text"] if liked else row["correction"].strip()
    # A correction stands for itself, whatever became of the answer that it is about
    if is_blank(answer) or (liked and row["status"] not in USABLE):
        return BROKEN_OFF
    if row["passages"] is not None:
        return FROM_DOCUMENTS
    if stored_with_tools(row["prompt"]):
        return WITH_TOOLS
    chars = len(question) + len(answer)
    if chars > MAX_EXAMPLE_CHARS:
        return (
            f"the answer is no example: it has {chars} characters with its question; the limit is"
            f" {MAX_EXAMPLE_CHARS}"
        )
    is_first = row["parent_answer_id"] is None
    if not is_first and len(set(tokens(question))) < LEAST_WORDS_OF_A_FOLLOW_UP:
        return FOLLOW_UP
    thought = untagged(row["thought"]).strip() if liked else ""
    return FeedbackExample(
        question,
        answer,
        thought if chars + len(thought) <= MAX_EXAMPLE_CHARS else "",
        row["answer_id"],
        row["id"],
        "like" if liked else "correction",
        is_shared,
    )
