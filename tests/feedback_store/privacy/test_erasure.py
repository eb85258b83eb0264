"""Rows of a person or a conversation go; all others stay as they were."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sqlalchemy import event, select

from engine.errors import UnknownId
from engine.messages import Message
from engine.prompts.modes import make_template
from feedback_store.conversations import conversation_list as conversations
from feedback_store.privacy.erasure import (
    Erasure,
    forget_conversations,
    forget_user,
    list_erasures,
    save_erasure,
    unfinished_erasures,
)
from feedback_store.records import ImportedAnswer, ImportedTurn, ImportedVote
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader, last_event
from feedback_store.storage.turns import new_id
from tests.feedback_store.conftest import PLAIN, Conversations
from tests.feedback_store.helpers import examples_now
from tests.feedback_store.people import People, all_rows, without

NAMES = ["ann", "bob", "eve"]


# A person


@pytest.mark.integration
def test_all_rows_of_a_person_go_and_no_other(people: People, database: Database) -> None:
    persons = [people.speaks(name) for name in NAMES]
    for person in persons:
        before = all_rows(database)
        erasure = forget_user(database, person.id)
        assert all_rows(database) == (
            {name: [] for name in before} if person is persons[-1] else without(before, person)
        )
        # 3 turns of two answers and a further one; a comparison; 2 votes, a copy, a correction, a
        # flag, a choice; a consent; 2 decisions, 2 taken back; a gold mark;
        # an example that is not to be used, and one that is shared
        expected = {
            "turns": 4,
            "answers": 7,
            "comparisons": 1,
            "events": 6,
            "consents": 1,
            "decisions": 6,
            "gold": 1,
            "conversations": 3,
            "search_documents": 11,
            "templates": int(person is persons[-1]),
            "unused_examples": 1,
            "shared_examples": 1,
            "prompts": 0,
            "tool_consents": 0,
            "alternatives": 0,
            "waiting_comparisons": 0,
        }
        assert erasure.receipt["rows"] == expected
        assert erasure.receipt["conversations"] == 3


def test_what_a_person_removed_of_anothers_shared_examples_goes_too(
    people: People, database: Database
) -> None:
    people.speaks("ann")
    (shared,) = people.shared.answer_ids()
    people.examples.remove("canary-bob", shared)
    assert forget_user(database, "canary-bob").receipt["rows"]["unused_examples"] == 1
    assert "canary-bob" not in str(all_rows(database))
    assert people.shared.answer_ids() == {shared}


def test_a_template_that_nobody_else_was_asked_with_goes_too(
    people: People, database: Database
) -> None:
    own = make_template("plain", (), "canary in a system prompt")
    for user, template in (("ann", own), ("bob", PLAIN)):
        people.store.add_turn(user_id=user, question="Q", template=template, conversation_id=user)
    forget_user(database, "ann")
    with database.read() as connection:
        assert list(connection.scalars(select(t.templates.c.hash))) == [PLAIN.hash]


def test_somebody_of_whom_nothing_is_known_cannot_be_forgotten(
    people: People, database: Database
) -> None:
    people.speaks("ann")
    before = all_rows(database)
    with pytest.raises(UnknownId, match="nothing is known"):
        forget_user(database, "ANN")
    assert (all_rows(database), list_erasures(database)) == (before, [])


def test_somebody_who_only_said_whether_they_consent_can_be_forgotten(
    people: People, database: Database
) -> None:
    people.curation.set_consent("ann", False)
    assert forget_user(database, "ann").receipt["rows"]["consents"] == 1
    assert people.curation.refusing() == frozenset()


def test_rows_and_record_are_one_transaction(people: People, database: Database) -> None:
    """A crash at any statement leaves everything, or a record of what is still to be done."""
    person = people.speaks("ann")
    before, statements = all_rows(database), [0]

    class Crash(Exception):
        pass

    def crash(*_: object) -> None:
        statements[0] -= 1
        if statements[0] == 0:
            raise Crash  # and what is below 0 is left alone

    event.listen(database._engine, "before_cursor_execute", crash)
    for place in range(2, 100):  # the first one begins the transaction
        statements[0] = place
        try:
            forget_user(database, person.id)
        except Crash:
            assert (all_rows(database), unfinished_erasures(database)) == (before, [])
        else:
            break
    assert place > 10
    statements[0] = 0
    (left,) = unfinished_erasures(database)
    assert left.conversation_ids == set(person.conversations)
    assert not any(all_rows(database).values())


def test_the_record_never_names_the_person(people: People, database: Database) -> None:
    person = people.speaks("ann")
    erasure = forget_user(database, person.id)

    def record() -> str:
        with database.read() as connection:
            return str(connection.execute(select(t.erasures)).mappings().all())

    assert not any(mark in record() for mark in (person.id, person.canary))
    save_erasure(database, erasure, done=True)
    assert str(erasure.person) not in record()
    assert not any(mark in record() for mark in person.marks)
    assert unfinished_erasures(database) == []


def test_what_was_forgotten_is_refused_like_what_never_was(
    people: People, database: Database
) -> None:
    """And an answer that is still being made then comes to nothing."""
    talk = Conversations(people.store)
    answer_id = talk.ask(user="ann")
    streaming = talk.begin(people.store.turn_of(answer_id, "ann").id)
    comparison = people.store.compare(answer_id, talk.again(answer_id, "B"), "ann")
    forget_user(database, "ann")
    refusals = []
    for deleted in (answer_id, new_id()):
        with pytest.raises(UnknownId) as refused:
            people.store.vote(deleted, "ann", 1)
        refusals.append(str(refused.value).replace(deleted, "ID"))
    assert refusals[0] == refusals[1]
    with pytest.raises(UnknownId):
        people.store.choose(comparison.id, "ann", "left")
    people.store.save_partial(streaming, "canary")
    talk.finish(streaming, "canary")
    assert not any(all_rows(database).values())


def test_the_training_set_lets_go_of_a_person_at_once(people: People, database: Database) -> None:
    ann, bob = people.speaks("ann"), people.speaks("bob")
    assert {u for p in people.pairs() for u in p.origin.user_ids} == {ann.id, bob.id}
    forget_user(database, ann.id)
    assert {u for p in people.pairs() for u in p.origin.user_ids} == {bob.id}


def test_the_number_of_an_event_that_was_erased_is_never_given_again(
    people: People, database: Database
) -> None:
    people.speaks("bob")
    people.speaks("ann")
    with database.read() as connection:
        newest = last_event(connection)
    forget_user(database, "user-ann-7f3a")
    people.speaks("eve")
    judged = EvidenceReader(database).judged_since(newest)
    assert {name.split("-")[1] for name in judged} == {"eve"}


# A conversation


def test_all_rows_of_a_conversation_go_and_no_other(people: People, database: Database) -> None:
    person = people.speaks("ann")
    first, *others = person.conversations
    before = all_rows(database)
    erasure = forget_conversations(database, [first])
    expected = {name: [row for row in each if first not in row] for name, each in before.items()}
    after = all_rows(database)
    # These rows name no conversation: of seven answers and six events two and three go
    assert (len(after.pop("answers")), len(after.pop("events"))) == (5, 3)
    assert after.pop("shared_examples") == []
    del expected["answers"], expected["events"], expected["shared_examples"]
    assert after == expected
    assert erasure.receipt["rows"] == {
        "decisions": 3,
        "events": 3,
        "comparisons": 0,
        "answers": 2,
        "turns": 1,
        "gold": 0,
        "search_documents": 3,
        "conversations": 1,
        "templates": 0,
        "unused_examples": 0,
        "shared_examples": 1,
        "alternatives": 0,
        "waiting_comparisons": 0,
    }
    assert erasure.person is None and erasure.conversation_ids == {first}
    assert {p.origin.conversation_id for p in people.pairs()} <= set(others)


def test_of_several_conversations_all_that_are_there_go(people: People, database: Database) -> None:
    person = people.speaks("ann")
    erasure = forget_conversations(database, [*person.conversations[:2], "gone"])
    assert erasure.conversation_ids == set(person.conversations[:2])
    with pytest.raises(UnknownId, match="no conversation"):
        forget_conversations(database, [person.conversations[0]])


def test_a_conversation_that_was_restored_meanwhile_is_not_erased(
    people: People, database: Database
) -> None:
    person = people.speaks("ann")
    restored, deleted, late = person.conversations[:3]
    listed = conversations.Conversations(database)
    for each in (restored, deleted):
        listed.delete(each, person.id)
    before = time.time()
    listed.delete(late, person.id)
    listed.restore(restored, person.id)
    erasure = forget_conversations(database, [restored, deleted, late], deleted_before=before)
    assert erasure.conversation_ids == {deleted}
    with pytest.raises(UnknownId, match="no conversation"):
        forget_conversations(database, [restored, late], deleted_before=before)


def test_a_deleted_conversation_is_known_to_the_record_until_the_erasure_is_done(
    people: People, database: Database
) -> None:
    person = people.speaks("ann")
    erasure = forget_conversations(database, [person.conversations[0]])
    assert unfinished_erasures(database) == [erasure] and erasure.unlearns
    save_erasure(database, erasure, done=True)
    (done,) = list_erasures(database)
    assert (done.conversation_ids, done.person, done.deleted) == (frozenset(), None, None)


# A person among others in an imported conversation

ASKED = ImportedTurn(
    (Message("user", "Which?"),),
    (
        ImportedAnswer("This one.", votes=(ImportedVote("ann", 1), ImportedVote("bob", 1))),
        ImportedAnswer("That one.", votes=(ImportedVote("bob", -1, comment="No."),)),
        ImportedAnswer("Neither.", votes=(ImportedVote("ann", -1, comment="canary"),)),
    ),
    conversation="shared",
)


@pytest.mark.integration
def test_whoever_judged_what_another_asked_takes_only_their_judgements_along(
    people: People, database: Database, tmp_path: Path
) -> None:
    people.store.add_imported([ASKED], PLAIN, "import")
    users_of = {pair.rejected.text: pair.origin.user_ids for pair in people.pairs()}
    assert users_of == {"That one.": ("ann", "bob"), "Neither.": ("ann", "bob")}
    for pair in people.pairs():
        people.curation.exclude(pair, "canary: ann is rude")
    forget_user(database, "ann")
    assert people.store.counts()["votes"] == 2
    # Bob's pair is as it was, but for Ann; the operator's decision about it still holds
    (aside,) = [s for s in examples_now(people.training_set).set_aside if s.example_id]
    assert (aside.reason, aside.user_ids) == ("excluded by the operator", ("bob",))
    rows = str(all_rows(database))
    assert "canary" not in rows and "ann" not in rows.replace("canary", "")


def test_an_erasure_reads_back_as_it_was_saved(people: People, database: Database) -> None:
    people.speaks("ann")
    begun = forget_user(database, "user-ann-7f3a")
    assert unfinished_erasures(database) == [begun]
    going_on = Erasure(
        begun.number,
        {**begun.receipt, "bundles": ["b"]},
        begun.person,
        begun.conversation_ids,
        {"snapshot": ["person"]},
    )
    save_erasure(database, going_on)
    assert unfinished_erasures(database) == list_erasures(database) == [going_on]
