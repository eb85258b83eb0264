"""A person's data in one document: all that an erasure would find of them, and nobody else's."""

from __future__ import annotations

import json

from feedback_store.personal.own_prompts import OwnPrompts, PromptText
from feedback_store.personal.personal_data import personal_data
from feedback_store.storage import tables
from feedback_store.storage.database import Database
from tests.feedback_store.people import People, all_rows

DERIVED = {"search_documents"}  # from questions, answers and titles, which are there


def test_everything_of_a_person_and_nothing_of_another(database: Database) -> None:
    people = People(database)
    ann, bob = people.speaks("ann"), people.speaks("bob")
    document = personal_data(database, ann.id)
    said = json.dumps(document, ensure_ascii=False)
    assert not any(mark in said for mark in bob.marks)
    ids = [row["id"] for row in document["conversations"]]
    assert ids == ann.conversations
    with database.read() as connection:
        for table in tables.feedback_metadata.sorted_tables:
            if table in (tables.erasures, *tables.DERIVED) or table.name in DERIVED:
                continue
            for row in connection.execute(table.select()).mappings():
                if any(mark in str(row) for mark in ann.marks):
                    words = [v for v in row.values() if isinstance(v, str) and len(v) > 8]
                    assert words
                    assert all(json.dumps(v, ensure_ascii=False) in said for v in words), table


def test_it_says_how_it_is_to_be_read(database: Database) -> None:
    people = People(database)
    ann = people.speaks("ann")
    before = all_rows(database)
    document = personal_data(database, ann.id)
    assert document["format"] == "burnish-person/1"
    assert document["person"] == ann.id
    assert [row["allowed"] for row in document["consents"]] == [1]
    assert len(document["examples_removed"]) == len(document["examples_shared"]) == 1
    kinds = {row["kind"] for row in document["statements"]}
    assert kinds == {"vote", "copy", "correction", "flag", "choice"}
    turns = [turn for row in document["conversations"] for turn in row["turns"]]
    assert all(turn["answers"] and turn["template"]["mode"] == "plain" for turn in turns)
    assert {row["action"] for row in document["decisions"]} == {"exclude", "edit", "include"}
    assert all("user_ids" not in row for row in document["decisions"])
    assert all_rows(database) == before


def test_the_prompts_that_a_person_keeps_are_theirs_too(database: Database) -> None:
    people = People(database)
    ann, bob = people.speaks("ann"), people.speaks("bob")
    OwnPrompts(database).add(ann.id, PromptText("saved", "Letter", "Write to {{name}}."))
    (prompt,) = personal_data(database, ann.id)["prompts"]
    assert (prompt["title"], prompt["text"]) == ("Letter", "Write to {{name}}.")
    assert personal_data(database, bob.id)["prompts"] == []
