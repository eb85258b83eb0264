"""The inbox of down-voted answers: what is in it, in which order, and what was looked at."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from engine.errors import UnknownId
from feedback_store.curation.inbox import Inbox
from feedback_store.privacy.erasure import forget_user
from feedback_store.records import VoteValue
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from feedback_store.storage.wanted import Wanted
from tests.feedback_store.conftest import Conversations


@pytest.fixture
def inbox(database: Database) -> Inbox:
    return Inbox(database)


def questions(inbox: Inbox, wanted: Wanted | None = None, *, looked_at: bool = False) -> list[str]:
    votes, total = inbox.page(wanted, looked_at=looked_at, count=20)
    assert len(votes) == total
    return [vote.question for vote in votes]


def test_a_vote_has_all_that_its_person_said_and_the_newest_comes_first(
    store: FeedbackStore, talk: Conversations, inbox: Inbox
) -> None:
    first = talk.ask("First?", "One.", user="bob", conversation="c1")
    store.vote(first, "bob", -1, reasons=["too_long", "other"], comment="Shorter, please.")
    store.correct(first, "bob", "1.")
    store.vote(talk.ask("Second?", "Two.", conversation="c2"), "ann", -1)
    store.vote(talk.ask("Liked?", "Yes.", conversation="c3"), "ann", 1)
    (second, told), total = inbox.page(count=20)
    assert (total, inbox.count_new()) == (2, 2)
    assert (second.question, second.comment, second.correction) == ("Second?", "", "")
    assert (told.question, told.answer, told.user_id) == ("First?", "One.", "bob")
    assert (set(told.reasons), told.comment) == ({"too_long", "other"}, "Shorter, please.")
    assert (told.correction, told.adapter, told.looked_at) == ("1.", None, None)
    assert [vote.question for vote in inbox.page(first=1, count=1)[0]] == ["First?"]


def test_a_vote_that_was_changed_or_cleared_is_not_in_it(
    store: FeedbackStore, talk: Conversations, inbox: Inbox
) -> None:
    changes: tuple[VoteValue, ...] = (1, 0)
    for number, later in enumerate(changes):
        answer = talk.ask(f"Question {number}?", conversation=f"c{number}")
        store.vote(answer, "ann", -1)
        store.vote(answer, "ann", later)
    assert inbox.count_new() == 0


def test_what_was_looked_at_stays_so_until_the_person_votes_again(
    store: FeedbackStore, talk: Conversations, inbox: Inbox
) -> None:
    answer = talk.ask("First?")
    store.vote(answer, "ann", -1)
    (vote,), _ = inbox.page(count=1)
    inbox.look_at(vote.event_id)
    inbox.look_at(vote.event_id)  # twice is once
    assert (questions(inbox), questions(inbox, looked_at=True)) == ([], ["First?"])
    inbox.put_back(vote.event_id)
    assert questions(inbox) == ["First?"]
    inbox.look_at(vote.event_id)
    store.vote(answer, "ann", -1, reasons=["too_long"])
    assert questions(inbox) == ["First?"]
    with pytest.raises(UnknownId, match="no vote 99"):
        inbox.look_at(99)


def test_a_search_finds_texts_comments_reasons_corrections_and_people(
    store: FeedbackStore, talk: Conversations, inbox: Inbox
) -> None:
    one = talk.ask("Where is the sea?", "Far.", user="bob", conversation="c1")
    store.vote(one, "bob", -1, reasons=["too_short"], comment="It says NOTHING")
    two = talk.ask("Who sails?", "A sailor.", user="chen", conversation="c2")
    store.vote(two, "chen", -1)
    store.correct(two, "chen", "A captain.")
    for words in ("the sea", "far", "nothing", "bob"):
        assert questions(inbox, Wanted(words)) == ["Where is the sea?"], words
    for words in ("sailor", "captain", "chen"):
        assert questions(inbox, Wanted(words)) == ["Who sails?"], words
    by_reason = Wanted("too short", reasons=frozenset(["too_short"]))
    assert questions(inbox, by_reason) == ["Where is the sea?"]
    assert questions(inbox, Wanted("Mr Chen", users=frozenset(["chen"]))) == ["Who sails?"]
    assert questions(inbox, Wanted("100%")) == []


def test_a_vote_that_is_erased_takes_its_mark_along(
    store: FeedbackStore, talk: Conversations, inbox: Inbox, database: Database
) -> None:
    store.vote(talk.ask("First?"), "ann", -1)
    (vote,), _ = inbox.page(count=1)
    inbox.look_at(vote.event_id)
    forget_user(database, "ann")
    with database.read() as connection:
        assert connection.execute(select(t.looked_votes)).all() == []
