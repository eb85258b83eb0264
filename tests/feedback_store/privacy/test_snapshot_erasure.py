"""Snapshots are published anew without a person, and without what is old."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select, update

from engine.messages import Message
from engine.storage import folder_of, list_digests
from feedback_store.privacy.erasure import (
    forget_before,
    forget_conversations,
    forget_user,
    list_erasures,
    rewrite_snapshots,
    save_erasure,
)
from feedback_store.records import ImportedAnswer, ImportedTurn, ImportedVote
from feedback_store.snapshots.snapshot import verify_snapshot
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from tests.feedback_store.conftest import PLAIN
from tests.feedback_store.people import People, all_rows, examples_of, mark_old, without


def test_a_snapshot_is_published_anew_without_a_conversation(
    people: People, database: Database, tmp_path: Path
) -> None:
    person = people.speaks("ann")
    old = people.freeze(tmp_path)
    gone = person.conversations[0]
    erasure = rewrite_snapshots(tmp_path, forget_conversations(database, [gone]))
    new = str(erasure.receipt["snapshots"][old])
    left = [e for e in examples_of(tmp_path, old) if e.origin.conversation_id != gone]
    assert examples_of(tmp_path, new) == left != []
    assert erasure.people == {}  # what learnt from it goes now; nobody need find it later


def test_examples_of_others_in_a_shared_conversation_stay_in_a_snapshot(
    people: People, database: Database, tmp_path: Path
) -> None:
    judged = [f"shared-{number}" for number in range(20)]
    turns = [
        ImportedTurn(
            (Message("user", f"Which, {name}?"),),
            (
                ImportedAnswer("This one.", votes=(ImportedVote("bob", 1),)),
                ImportedAnswer("That one.", votes=(ImportedVote("bob", -1),)),
                ImportedAnswer("Nobody knows.", corrections=(("ann", "canary: I do."),)),
            ),
            conversation=name,
        )
        for name in judged
    ]
    people.store.add_imported(turns, PLAIN, "import")
    old = people.freeze(tmp_path)
    erasure = rewrite_snapshots(tmp_path, forget_user(database, "ann"))
    new = str(erasure.receipt["snapshots"][old])
    kept = [e for e in examples_of(tmp_path, old) if "ann" not in e.origin.user_ids]
    assert examples_of(tmp_path, new) == kept
    assert len([e for e in kept if e.source == "votes"]) == 20


# Snapshots


def test_a_snapshot_is_published_anew_without_a_person(
    people: People, database: Database, tmp_path: Path
) -> None:
    ann, bob = people.speaks("ann"), people.speaks("bob")
    old = people.freeze(tmp_path)
    erasure = rewrite_snapshots(tmp_path, forget_user(database, ann.id))
    new = str(erasure.receipt["snapshots"][old])
    assert verify_snapshot(tmp_path, new) == []
    assert [e.as_dict() for e in examples_of(tmp_path, new)] == [
        e.as_dict() for e in examples_of(tmp_path, old) if e.origin.user_ids == (bob.id,)
    ]
    again = rewrite_snapshots(tmp_path, erasure)  # as after a crash
    assert again.receipt["snapshots"] == {old: new}


def test_a_snapshot_of_others_is_left_alone(
    people: People, database: Database, tmp_path: Path
) -> None:
    people.speaks("bob")
    kept = people.freeze(tmp_path)
    people.speaks("ann")
    held_her = people.freeze(tmp_path)
    erasure = rewrite_snapshots(tmp_path, forget_user(database, "user-ann-7f3a"))
    assert set(erasure.receipt["snapshots"]) == {held_her}
    assert verify_snapshot(tmp_path, kept) == []


def test_of_a_snapshot_of_one_person_nothing_is_left(
    people: People, database: Database, tmp_path: Path
) -> None:
    people.speaks("ann")
    old = people.freeze(tmp_path)
    erasure = rewrite_snapshots(tmp_path, forget_user(database, "user-ann-7f3a"))
    assert erasure.receipt["snapshots"] == {old: None}
    assert list_digests(tmp_path) == [old]


def test_a_snapshot_that_cannot_be_read_is_given_up_and_stops_nobody(
    people: People, database: Database, tmp_path: Path
) -> None:
    people.speaks("ann")
    damaged = people.freeze(tmp_path)
    (folder_of(tmp_path, damaged) / "train" / "pairs.jsonl").write_text("{}\n")
    people.speaks("bob")
    good = people.freeze(tmp_path)
    erasure = rewrite_snapshots(tmp_path, forget_user(database, "user-ann-7f3a"))
    assert erasure.receipt["snapshots"][damaged] is None
    assert erasure.receipt["snapshots"][good] is not None


# Retention


def test_retention_deletes_whole_old_conversations_and_no_other(
    people: People, database: Database
) -> None:
    ann, bob = people.speaks("ann"), people.speaks("bob")
    mark_old(database, *ann.conversations)
    with database.write() as connection:  # one turn of a conversation of Bob's is old, too
        first = select(t.turns.c.id).where(t.turns.c.conversation_id == bob.conversations[1])
        turn_id = connection.scalars(first).first()
        connection.execute(update(t.turns).where(t.turns.c.id == turn_id).values(created_at=100.0))
    before = all_rows(database)
    erasure = forget_before(database, 100.5)
    assert erasure is not None and erasure.conversation_ids == set(ann.conversations)
    left = without(before, ann)
    left["consents"] = before["consents"]  # what they said of themselves is in no conversation
    assert all_rows(database) == left


def test_retention_without_anything_old_does_nothing(people: People, database: Database) -> None:
    people.speaks("ann")
    before = all_rows(database)
    assert forget_before(database, 100.0) is None
    assert (all_rows(database), list_erasures(database)) == (before, [])


def test_retention_remembers_whom_a_snapshot_held_until_they_are_forgotten(
    people: People, database: Database, tmp_path: Path
) -> None:
    ann, bob = people.speaks("ann"), people.speaks("bob")
    old = people.freeze(tmp_path)
    mark_old(database, ann.conversations[0], bob.conversations[0])
    erasure = forget_before(database, 100.5)
    assert erasure is not None
    save_erasure(database, rewrite_snapshots(tmp_path, erasure), done=True)
    assert {place: len(each) for place, each in list_erasures(database)[0].people.items()} == {
        old: 2
    }
    forgotten = forget_user(database, ann.id)
    assert forgotten.person in list_erasures(database)[0].people[old]
    save_erasure(database, forgotten, done=True)
    (person,) = list_erasures(database)[0].people[old]
    assert person == forget_user(database, bob.id).person
