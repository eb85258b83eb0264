"""What became of each thing that a person said: each reason once, in hand-made histories."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from engine.errors import UnknownId
from feedback_store.conversations.conversation_list import Conversations as Lists
from feedback_store.curation.decisions import Curation
from feedback_store.examples.rules import Rules
from feedback_store.examples.split import split_of
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.outcomes import Outcomes, StatementOutcome
from feedback_store.view.training_set import TrainingSet
from tests.feedback_store.conftest import Conversations
from tests.feedback_store.helpers import examples_now

TRAIN, HELDOUT = (
    next(c for c in (f"c{n}" for n in range(100)) if split_of(c) == side)
    for side in ("train", "heldout")
)


@pytest.fixture
def outcomes(database: Database, curation: Curation) -> Outcomes:
    return Outcomes(database, curation, Rules(max_answer_chars=40))


def became(outcome: StatementOutcome) -> tuple[list[str], list[str]]:
    """The kinds of examples that it made, and the reasons why it made none."""
    return sorted(each.kind for each in outcome.made), list(outcome.reasons)


def only(outcomes: Outcomes, user: str = "ann") -> tuple[list[str], list[str]]:
    (outcome,) = outcomes.of(user)
    return became(outcome)


# What makes examples


def test_a_correction_makes_a_pair_and_a_demonstration_at_once(
    outcomes: Outcomes, store: FeedbackStore, talk: Conversations
) -> None:
    answer = talk.ask("How tall is an oak?", "Tall.", conversation=TRAIN)
    store.correct(answer, "ann", "30 m.")
    (outcome,) = outcomes.of("ann")
    assert became(outcome) == (["demonstrations", "pairs"], [])
    assert outcome.split == "train"
    said = outcome.statement
    assert (said.kind, said.question, said.correction) == (
        "correction",
        "How tall is an oak?",
        "30 m.",
    )
    assert (said.answer_ids, said.conversation_id, said.listed) == ((answer,), TRAIN, True)


def test_a_thumb_makes_a_lone_judgement_that_is_good_or_bad(
    outcomes: Outcomes, store: FeedbackStore, talk: Conversations
) -> None:
    store.vote(talk.ask("One?", conversation="c1"), "ann", 1)
    bad = talk.ask("Two?", conversation="c2")
    store.vote(bad, "ann", -1, reasons=["too_long"], comment="Please shorter.")
    second, first = outcomes.of("ann")  # the newest first
    assert became(first) == (["demonstrations", "unpaired"], [])
    assert became(second) == (["unpaired"], [])
    assert [each.is_bad for each in (*first.made, *second.made) if each.kind == "unpaired"] == [
        False,
        True,
    ]
    said = second.statement
    assert (said.vote, said.reasons, said.comment) == (-1, ("too_long",), "Please shorter.")


def test_a_choice_makes_a_pair_and_names_both_answers(
    outcomes: Outcomes, store: FeedbackStore, talk: Conversations
) -> None:
    left = talk.ask(text="A leaf.")
    right = talk.again(left, "A green leaf.")
    store.choose(store.compare(left, right, "ann").id, "ann", "right")
    (outcome,) = outcomes.of("ann")
    assert became(outcome) == (["pairs"], [])
    assert (outcome.statement.choice, outcome.statement.answer_ids) == ("right", (left, right))


def test_what_is_held_out_measures_releases(
    outcomes: Outcomes, store: FeedbackStore, talk: Conversations, curation: Curation
) -> None:
    store.vote(talk.ask(conversation=HELDOUT), "ann", 1)
    assert [each.split for each in outcomes.of("ann")] == ["heldout"]
    curation.mark_gold(HELDOUT)
    assert [each.split for each in outcomes.of("ann")] == ["gold"]


# Why there is none


def test_without_consent_it_waits(
    outcomes: Outcomes, store: FeedbackStore, talk: Conversations, curation: Curation
) -> None:
    store.vote(talk.ask(), "ann", 1)
    curation.set_consent("ann", False)
    assert only(outcomes) == ([], ["no consent"])
    curation.set_consent("ann", True)
    assert only(outcomes) == (["demonstrations", "unpaired"], [])


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("", "done", "empty or aborted answer"),
        ("A leaf.", "aborted", "empty or aborted answer"),
        ("long " * 10, "done", "answer over the length limit"),
    ],
)
def test_an_answer_that_cannot_be_learnt_from(
    outcomes: Outcomes,
    store: FeedbackStore,
    talk: Conversations,
    text: str,
    status: Any,
    reason: str,
) -> None:
    answer = talk.finish(talk.begin(store.turn_of(talk.ask(), "ann").id), text, status)
    store.vote(answer, "ann", -1)
    assert only(outcomes) == ([], [reason])


def test_a_reported_answer_is_kept_out(
    outcomes: Outcomes, store: FeedbackStore, talk: Conversations
) -> None:
    answer = talk.ask()
    store.vote(answer, "ann", 1)
    store.note(answer, "ann", "flag")
    flag, vote = outcomes.of("ann")
    assert (flag.statement.kind, became(flag)) == ("flag", ([], []))
    assert became(vote) == ([], ["red-flagged text"])


def test_a_tie_teaches_nothing(
    outcomes: Outcomes, store: FeedbackStore, talk: Conversations
) -> None:
    left = talk.ask(text="A leaf.")
    right = talk.again(left, "A green leaf.")
    store.choose(store.compare(left, right, "ann").id, "ann", "tie")
    assert only(outcomes) == ([], ["tie"])


def test_a_stronger_statement_counts(
    outcomes: Outcomes, store: FeedbackStore, talk: Conversations
) -> None:
    answer = talk.ask(text="Tall.")
    store.vote(answer, "ann", -1)
    store.correct(answer, "ann", "30 m.")
    correction, vote = outcomes.of("ann")
    assert became(correction)[0] == ["demonstrations", "pairs"]
    assert became(vote) == ([], ["a stronger or later statement counts"])


def test_two_answers_that_read_the_same_and_one_that_is_cut_off(
    outcomes: Outcomes, store: FeedbackStore, talk: Conversations
) -> None:
    same = talk.ask("One?", "A leaf.", conversation="c1")
    store.choose(store.compare(same, talk.again(same, "a  LEAF."), "ann").id, "ann", "left")
    whole = talk.ask("Two?", "A leaf.", conversation="c2")
    cut = talk.begin(store.turn_of(whole, "ann").id)
    store.finish_answer(cut, status="done", text="A green", complete=False)
    store.choose(store.compare(whole, cut, "ann").id, "ann", "right")
    assert [became(each) for each in outcomes.of("ann")] == [
        ([], ["chosen answer is cut off"]),
        ([], ["identical after normalisation"]),
    ]


def test_what_depends_on_everybody_is_known_after_the_training_sets_look(
    outcomes: Outcomes,
    store: FeedbackStore,
    talk: Conversations,
    curation: Curation,
    training_set: TrainingSet,
) -> None:
    for user, conversation in (("bob", "c1"), ("ann", "c2")):
        store.correct(talk.ask(user=user, conversation=conversation), user, "A flat green part.")
    store.correct(talk.ask("And a root?", conversation="c3"), "ann", "A part below.")
    assert all(each.made for each in outcomes.of("ann"))
    for example in examples_now(training_set).every:
        if example.origin.conversation_id == "c3":
            curation.exclude(example)
    training_set.refresh()
    assert [became(each) for each in outcomes.of("ann")] == [
        ([], ["excluded by the operator"]),
        ([], ["duplicate"]),
    ]
    assert only(outcomes, "bob") == (["demonstrations", "pairs"], [])


# Which statements


def test_the_latest_of_each_kind_about_an_answer_and_nothing_that_was_taken_back(
    outcomes: Outcomes, store: FeedbackStore, talk: Conversations
) -> None:
    first, second = talk.ask(conversation="c1"), talk.ask("And a root?", conversation="c2")
    for vote in (1, -1):
        store.vote(first, "ann", vote)
        store.vote(second, "ann", vote)
    store.vote(second, "ann", 0)
    store.note(first, "ann", "copy")
    store.note(first, "ann", "regeneration")
    assert [(each.statement.kind, each.statement.vote) for each in outcomes.of("ann")] == [
        ("vote", -1)
    ]


def test_a_person_sees_their_own_alone_and_nothing_of_what_they_deleted(
    outcomes: Outcomes, store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    store.vote(talk.ask(conversation="c1"), "ann", 1)
    store.vote(talk.ask(user="bob", conversation="c2"), "bob", 1)
    (ann,) = outcomes.of("ann")
    assert outcomes.statement("ann", ann.statement.event_id) == ann.statement
    with pytest.raises(UnknownId, match="no statement"):
        outcomes.statement("bob", ann.statement.event_id)
    Lists(database).delete("c1", "ann")
    assert outcomes.of("ann") == []
    assert outcomes.of("eve") == []


def test_nobody_elses_rows_are_read(
    outcomes: Outcomes, store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    if "sqlite" not in database._engine.url.drivername:
        pytest.skip("PostgreSQL reads small tables whole")
    left = talk.ask()
    store.choose(store.compare(left, talk.again(left, "B."), "ann").id, "ann", "left")
    store.vote(left, "ann", 1)
    asked: list[tuple[str, Any]] = []

    def heard(_c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        asked.append((statement, values))

    event.listen(database._engine, "before_cursor_execute", heard)
    assert len(outcomes.of("ann")) == 2
    event.remove(database._engine, "before_cursor_execute", heard)
    with database.read() as connection:
        plans = [
            str(step[3])
            for statement, values in asked
            if statement.startswith("SELECT")
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        ]
    assert any("SEARCH events" in step for step in plans)
    assert {step for step in plans if step.startswith("SCAN")} <= {"SCAN templates", "SCAN gold"}
