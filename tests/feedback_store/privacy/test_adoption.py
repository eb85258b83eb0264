"""What a browser's person said becomes an account's, with all that rests on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import insert, select

from feedback_store.conversations.conversation_list import Conversations
from feedback_store.curation.decisions import Curation
from feedback_store.personal.own_prompts import OwnPrompts, PromptText
from feedback_store.privacy.adoption import adopt, adoptable_conversations
from feedback_store.privacy.erasure import forget_user, person_digest, rewrite_snapshots
from feedback_store.storage import tables
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import Conversations as Talk
from tests.feedback_store.people import People, Person, all_rows, examples_of

ACCOUNT = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def people(database: Database) -> People:
    return People(database)


@pytest.fixture
def ann(people: People) -> Person:
    """Somebody who said everything that a person can say."""
    ann = people.speaks("ann")
    OwnPrompts(people.database).add(ann.id, PromptText("saved", "Letter", "Write."))
    people.speaks("bob")
    return ann


def test_every_row_moves_and_nothing_of_anybody_else(people: People, ann: Person) -> None:
    before = all_rows(people.database)
    adopt(people.database, ann.id, ACCOUNT)
    after = all_rows(people.database)
    assert [name for name, rows in after.items() if ann.id in str(rows)] == []
    for name, rows in before.items():
        if name not in ("search_documents", "decisions"):  # terms and ids are made of the person's
            moved = sorted(row.replace(ann.id, ACCOUNT) for row in rows)
            assert after[name] == moved, name
    assert len(after["search_documents"]) == len(before["search_documents"])
    assert len(after["decisions"]) == len(before["decisions"])


def test_what_is_trained_on_stays_and_decisions_about_it_hold(people: People, ann: Person) -> None:
    before = people.training_set.refresh().counts
    texts = {(pair.chosen.text, pair.rejected.text) for pair in people.pairs()}
    assert f"{ann.canary} edited" in str(texts)  # the operator edited a correction
    adopt(people.database, ann.id, ACCOUNT)
    assert people.training_set.refresh().counts == before
    assert {(pair.chosen.text, pair.rejected.text) for pair in people.pairs()} == texts


def test_what_was_said_is_found_by_its_new_person_alone(people: People, ann: Person) -> None:
    conversations = Conversations(people.database)
    listed = ann.conversations[0]
    conversations.rename(listed, ann.id, "Zebras")
    assert adoptable_conversations(people.database, ann.id) == len(ann.conversations)
    adopt(people.database, ann.id, ACCOUNT)
    assert adoptable_conversations(people.database, ann.id) == 0
    for words in ("Zebras", ann.canary):
        assert listed in {found.summary.id for found in conversations.search(ACCOUNT, words)}
        assert conversations.search(ann.id, words) == []
    assert {row.id for row in conversations.page(ACCOUNT)} == set(ann.conversations)
    assert conversations.page(ann.id) == []


def test_a_snapshot_of_before_forgets_with_the_account(
    people: People, ann: Person, tmp_path: Path
) -> None:
    digest = people.freeze(tmp_path)
    assert ann.id in str(examples_of(tmp_path, digest))
    adopt(people.database, ann.id, ACCOUNT)
    erasure = rewrite_snapshots(tmp_path, forget_user(people.database, ACCOUNT))
    replaced = erasure.receipt["snapshots"][digest]
    assert replaced is not None
    left = str(examples_of(tmp_path, replaced))
    assert not any(mark in left for mark in ann.marks)


@pytest.mark.parametrize(
    ("browser", "account", "both"),
    [(None, None, True), (False, True, False), (True, False, False), (True, True, True)],
)
def test_whoever_refused_training_refuses_for_both(
    database: Database,
    store: FeedbackStore,
    talk: Talk,
    curation: Curation,
    browser: bool | None,
    account: bool | None,
    both: bool,
) -> None:
    talk.ask(user="browser")
    for user, allowed in (("browser", browser), (ACCOUNT, account)):
        if allowed is not None:
            curation.set_consent(user, allowed)
    adopt(database, "browser", ACCOUNT)
    assert curation.consents(ACCOUNT) is both


def test_two_browsers_become_one_account_though_their_keys_are_alike(
    database: Database, store: FeedbackStore, talk: Talk
) -> None:
    for browser in ("one", "two"):
        answer = talk.ask(user=browser, conversation=browser)
        store.vote(answer, browser, 1, idempotency_key="vote-1")
    for browser in ("one", "two"):
        adopt(database, browser, ACCOUNT)
    with database.read() as connection:
        users = connection.execute(select(tables.events.c.user_id)).scalars().all()
    assert users == [ACCOUNT, ACCOUNT]


def test_what_retention_took_from_snapshots_is_still_known_to_be_theirs(
    database: Database, store: FeedbackStore, talk: Talk
) -> None:
    talk.ask(user="browser")
    known = {"sha256:a": sorted([person_digest("browser"), person_digest("bob")])}
    with database.write() as connection:
        connection.execute(insert(tables.erasures).values(receipt={}, people=known, created_at=0))
    adopt(database, "browser", ACCOUNT)
    with database.read() as connection:
        people = connection.execute(select(tables.erasures.c.people)).scalar_one()
    assert set(people["sha256:a"]) == {person_digest(ACCOUNT), person_digest("bob")}
