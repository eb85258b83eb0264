"""A person's list of conversations."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import update

from engine.errors import InvalidText, UnknownId
from feedback_store.conversations.conversation_list import Conversations
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.listing import title_of
from tests.feedback_store.conftest import Conversations as Talk


def ids(conversations: Conversations, user: str = "ann") -> list[str]:
    return [summary.id for summary in conversations.page(user)]


# Titles


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("What is a leaf?", "What is a leaf?"),
        ("\n \n  What\tis   a leaf?  \nTell me.", "What is a leaf?"),
        ("\u200b\nWhat?", "What?"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
        ("word " * 12 + "end", "word " * 11 + "word…"),  # 59 characters and the sign
        ("word " * 11 + "longer words", "word " * 10 + "word…"),
        ("a " + "字" * 70, "a " + "字" * 57 + "…"),  # one letter would say nothing
    ],
)
def test_a_title_is_the_beginning_of_the_question(question: str, title: str) -> None:
    assert title_of(question) == title
    assert len(title) <= 60


# The list


def test_a_conversation_is_listed_by_its_first_question_and_moves_up_with_each_turn(
    talk: Talk, conversations: Conversations
) -> None:
    first = talk.ask("What is a leaf?", conversation="c1")
    talk.ask("What is a root?", conversation="c2")
    assert ids(conversations) == ["c2", "c1"]
    before = time.time()
    talk.ask("And a stem?", conversation="c1", parent=first)
    summary, _ = conversations.page("ann")
    assert (summary.id, summary.title, summary.pinned) == ("c1", "What is a leaf?", False)
    assert before <= summary.updated_at <= time.time()
    assert (ids(conversations, "bob"), conversations.pinned("ann")) == ([], [])


def test_pages_follow_each_other_without_gap_or_repetition(
    talk: Talk, conversations: Conversations, database: Database
) -> None:
    for number in range(7):
        talk.ask(conversation=f"c{number}")
    with database.write() as connection:  # several at the same moment
        connection.execute(update(t.conversations).values(updated_at=5.0))
    pages = []
    before = None
    while page := conversations.page("ann", before=before, limit=3):
        pages.append([summary.id for summary in page])
        before = (page[-1].updated_at, page[-1].id)
    assert pages == [["c6", "c5", "c4"], ["c3", "c2", "c1"], ["c0"]]


def test_what_is_pinned_is_in_a_list_of_its_own(talk: Talk, conversations: Conversations) -> None:
    talk.ask(conversation="c1")
    talk.ask(conversation="c2")
    conversations.pin("c1", "ann", True)
    assert ([s.id for s in conversations.pinned("ann")], ids(conversations)) == (["c1"], ["c2"])
    assert conversations.pinned("ann")[0].pinned
    conversations.pin("c1", "ann", False)
    assert (conversations.pinned("ann"), ids(conversations)) == ([], ["c2", "c1"])


def test_a_title_can_be_given(talk: Talk, conversations: Conversations) -> None:
    talk.ask(conversation="c1")
    conversations.rename("c1", "ann", "  Leaves\n and more ")
    assert conversations.view("c1", "ann").summary.title == "Leaves and more"
    for title in ("", " \n", "x" * 201, "a\x00"):
        with pytest.raises(InvalidText, match="title"):
            conversations.rename("c1", "ann", title)


@pytest.mark.parametrize("whose", ["bob's", "deleted", "\x00", "c" * 65])
def test_nobody_asks_in_any_other_conversation(
    talk: Talk, conversations: Conversations, whose: str
) -> None:
    talk.ask(conversation="bob's", user="bob")
    talk.ask(conversation="deleted", user="ann")
    conversations.delete("deleted", "ann")
    with pytest.raises(UnknownId if len(whose) in range(2, 65) else InvalidText):
        talk.ask(conversation=whose, user="ann")
    assert (len(conversations.view("bob's", "bob").turns), ids(conversations)) == (1, [])


@pytest.mark.parametrize("whose", ["unknown", "bob's", "deleted", "\x00"])
def test_any_other_conversation_is_unknown(
    talk: Talk, conversations: Conversations, whose: str
) -> None:
    answer_id = talk.ask(conversation="c1", user="ann")
    talk.ask(conversation="bob's", user="bob")
    talk.ask(conversation="deleted", user="ann")
    conversations.delete("deleted", "ann")
    for act in (
        lambda: conversations.view(whose, "ann"),
        lambda: conversations.show(whose, "ann", answer_id),
        lambda: conversations.show_turn(whose, "ann", "t"),
        lambda: conversations.rename(whose, "ann", "Mine"),
        lambda: conversations.pin(whose, "ann", True),
        lambda: conversations.delete(whose, "ann"),
    ):
        with pytest.raises((UnknownId, InvalidText)):
            act()
    assert [s.title for s in conversations.page("bob")] == ["What is a leaf?"]


def test_a_deleted_conversation_can_be_restored_until_it_is_erased(
    talk: Talk, conversations: Conversations, database: Database
) -> None:
    talk.ask(conversation="c1")
    talk.ask(conversation="c2")
    conversations.pin("c2", "ann", True)
    before = time.time()
    for each in ("c1", "c2"):
        conversations.delete(each, "ann")
    assert (ids(conversations), conversations.pinned("ann")) == ([], [])
    assert conversations.due(before) == []
    assert conversations.due(time.time() + 1) == ["c1", "c2"]
    conversations.restore("c1", "ann")
    assert (ids(conversations), conversations.due(time.time() + 1)) == (["c1"], ["c2"])
    conversations.restore("c1", "ann")  # twice does no harm
    with pytest.raises(UnknownId):
        conversations.restore("c2", "bob")
