"""Whoever goes on with a changed answer, or likes it, has chosen it over the older one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
from sqlalchemy import select

from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.feedback_store.conftest import Conversations
from tests.feedback_store.helpers import examples_now

LONG = "The sea is a very large body of salt water that covers most of the earth."
SHORT = "Salt water over most of the earth."
Shorten = Callable[..., str]


@pytest.fixture
def shorten(store: FeedbackStore, talk: Conversations) -> Shorten:
    """Write a shorter sibling of an answer; returns its id."""

    def shorten(answer_id: str, text: str = SHORT, *, ends: bool = True) -> str:
        turn = store.turn_of(answer_id, "ann")
        changed = store.begin_answer(
            turn.id,
            base_digest="sha256:base",
            adapter_digest=None,
            seed=0,
            sampling={"change": "shorter", "changed_from": answer_id},
        )
        return talk.finish(changed, text, "done" if ends else "stopped")

    return shorten


def pairs(training_set: TrainingSet) -> list[tuple[str, str, str]]:
    """Chosen, rejected and source of every pair."""
    return [
        (pair.chosen.text, pair.rejected.text, pair.source)
        for pair in examples_now(training_set).pairs
    ]


def reasons(database: Database) -> list[object]:
    with database.read() as connection:
        query = select(t.events.c.choice, t.events.c.reasons).where(t.events.c.kind == "choice")
        return [tuple(row) for row in connection.execute(query.order_by(t.events.c.id))]


def test_a_change_that_is_liked_is_a_pair_with_its_reason(
    store: FeedbackStore,
    talk: Conversations,
    shorten: Shorten,
    training_set: TrainingSet,
    database: Database,
) -> None:
    changed = shorten(talk.ask("What is the sea?", LONG))
    assert pairs(training_set) == []  # to ask for it says nothing yet
    store.vote(changed, "ann", 1)
    store.vote(changed, "ann", 1, reasons=["right_length"])
    assert pairs(training_set) == [(SHORT, LONG, "comparison")]
    assert reasons(database) == [("right", ["shorter"])]
    (pair,) = examples_now(training_set).pairs
    assert [m.content for m in pair.prompt][-1] == "What is the sea?"


def test_a_change_that_is_gone_on_with_is_a_pair(
    talk: Conversations, shorten: Shorten, training_set: TrainingSet
) -> None:
    changed = shorten(talk.ask("What is the sea?", LONG))
    talk.ask("And a lake?", "Water in the land.", parent=changed)
    talk.ask("And a pond?", "A small lake.", parent=changed)
    assert pairs(training_set) == [(SHORT, LONG, "comparison")]


def test_whoever_goes_back_to_the_old_answer_has_chosen_neither(
    talk: Conversations, shorten: Shorten, training_set: TrainingSet, database: Database
) -> None:
    old = talk.ask("What is the sea?", LONG)
    changed = shorten(old)
    talk.ask("And a lake?", "Water in the land.", parent=changed)
    talk.ask("And a lake?", "Water in the land.", parent=old)
    talk.ask("And a pond?", "A small lake.", parent=old)
    assert pairs(training_set) == []
    assert reasons(database) == [("right", ["shorter"]), ("tie", None)]
    talk.ask("And a pond?", "A small lake.", parent=changed)
    assert pairs(training_set) == [(SHORT, LONG, "comparison")]


@pytest.mark.parametrize("vote", [0, -1])
def test_a_thumb_that_is_taken_back_takes_the_pair_with_it(
    vote: Literal[-1, 0],
    store: FeedbackStore,
    talk: Conversations,
    shorten: Shorten,
    training_set: TrainingSet,
) -> None:
    changed = shorten(talk.ask("What is the sea?", LONG))
    store.vote(changed, "ann", 1)
    store.vote(changed, "ann", vote)
    assert pairs(training_set) == []


def test_half_an_answer_and_one_of_another_question_are_not_chosen(
    store: FeedbackStore, talk: Conversations, shorten: Shorten, training_set: TrainingSet
) -> None:
    store.vote(shorten(talk.ask("What is the sea?", LONG), ends=False), "ann", 1)
    stray = shorten(talk.ask("What is a lake?", "Water in the land.", conversation="c2"))
    with_other_parent = talk.ask("What is a pond?", "A small lake.", conversation="c3")
    turn = store.turn_of(with_other_parent, "ann")
    elsewhere = store.begin_answer(
        turn.id,
        base_digest="sha256:base",
        adapter_digest=None,
        seed=0,
        sampling={"change": "longer", "changed_from": stray},
    )
    store.vote(talk.finish(elsewhere, "A lake that is small, in a garden."), "ann", 1)
    assert pairs(training_set) == []


def test_a_thumb_on_an_answer_that_was_not_changed_compares_nothing(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    answer = talk.ask("What is the sea?", LONG)
    talk.again(answer, SHORT)
    store.vote(answer, "ann", 1)
    talk.ask("And a lake?", "Water in the land.", parent=answer)
    assert reasons(database) == []
