"""What a canary reads: conversations that began since, their answers, and what is said of them."""

from __future__ import annotations

import time

import pytest

from feedback_store.records import OPERATOR
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.canary_evidence import CanaryEvidence, Said, read_canary_evidence
from tests.feedback_store.conftest import Conversations

BASE = "sha256:base"


def read(database: Database, since: float) -> CanaryEvidence:
    return read_canary_evidence(database, BASE, since)


def statements(evidence: CanaryEvidence) -> list[tuple[object, ...]]:
    return [(s.conversation_id, s.kind, s.answer_id, s.value) for s in evidence.said]


def test_conversations_that_began_before_are_left_out_with_what_is_said_in_them(
    database: Database, store: FeedbackStore, talk: Conversations
) -> None:
    before = talk.ask(conversation="old")
    store.vote(before, "ann", 1)
    since = time.time()
    later = talk.ask(conversation="old", parent=before)
    store.vote(later, "ann", 1)
    new = talk.ask(conversation="new")
    store.vote(new, "ann", -1)
    evidence = read(database, since)
    assert [each.id for each in evidence.answers] == [new]
    assert statements(evidence) == [("new", "vote", new, -1)]
    assert read_canary_evidence(database, "sha256:another", since).answers == ()


def test_what_is_said_later_is_left_out_and_leaves_what_was_said_before(
    database: Database, store: FeedbackStore, talk: Conversations
) -> None:
    answer = talk.ask()
    store.vote(answer, "ann", 1)
    until = time.time()
    store.vote(answer, "ann", -1)
    later = talk.ask(conversation="c2")
    store.vote(later, "ann", 1)
    evidence = read_canary_evidence(database, BASE, 0, until)
    assert statements(evidence) == [("c1", "vote", answer, 1)]
    assert [each.id for each in evidence.answers] == [answer]


def test_statements_stand_where_they_were_first_made_as_they_are_now(
    database: Database, store: FeedbackStore, talk: Conversations
) -> None:
    first, second = (talk.ask(conversation=name) for name in ("c1", "c2"))
    store.vote(first, "ann", 1)
    store.vote(second, "ann", 1)
    store.vote(first, "ann", -1)
    assert statements(read(database, 0)) == [("c1", "vote", first, -1), ("c2", "vote", second, 1)]
    store.vote(second, "ann", 0)  # cleared
    assert statements(read(database, 0)) == [("c1", "vote", first, -1)]


def test_corrections_and_regenerations_are_read_until_they_are_withdrawn(
    database: Database, store: FeedbackStore, talk: Conversations
) -> None:
    answer = talk.ask()
    store.note(answer, "ann", "copy")
    store.note(answer, "ann", "regeneration")
    store.correct(answer, "ann", "A green leaf.")
    assert statements(read(database, 0)) == [
        ("c1", "regeneration", answer, None),
        ("c1", "correction", answer, None),
    ]
    store.withdraw(answer, "ann")
    assert statements(read(database, 0)) == [("c1", "regeneration", answer, None)]


@pytest.mark.parametrize(
    ("choice", "chosen", "is_tie"),
    [("left", 0, False), ("right", 1, False), ("tie", 0, True), ("both_bad", 0, True)],
)
def test_a_choice_names_the_answer_that_was_chosen(
    database: Database,
    store: FeedbackStore,
    talk: Conversations,
    choice: str,
    chosen: int,
    is_tie: bool,
) -> None:
    left = talk.ask()
    sides = (left, talk.again(left, "Another leaf."))
    comparison = store.compare(*sides, "ann")
    store.choose(comparison.id, "ann", choice)  # type: ignore[arg-type]
    (said,) = read(database, 0).said
    assert isinstance(said, Said)
    assert (said.answer_id, said.other_id) == (sides[chosen], sides[1 - chosen])
    assert said.is_tie is is_tie


def test_what_the_operator_judges_on_the_console_is_no_persons_verdict(
    database: Database, store: FeedbackStore, talk: Conversations
) -> None:
    answer = talk.ask(user=OPERATOR)
    store.vote(answer, OPERATOR, 1)
    assert read(database, 0).said == ()


def test_the_outcome_of_an_answer_is_read_with_it(
    database: Database, store: FeedbackStore, talk: Conversations
) -> None:
    talk.ask(text=" \n ")
    talk.ask(text="A leaf.", conversation="c2")
    empty, full = read(database, 0).answers
    assert (empty.is_empty, full.is_empty) == (True, False)
    assert empty.status == "done"
    assert empty.finished_at is not None and empty.finished_at >= empty.created_at
