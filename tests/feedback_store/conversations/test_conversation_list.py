"""A person's list of conversations, and the branch of one that is shown."""

from __future__ import annotations

import json
import time

import pytest
from sqlalchemy import event, select, update

from engine.errors import Conflict, InvalidText, UnknownId
from feedback_store.conversations.conversation_list import Conversations, ShownTurn
from feedback_store.formats.conversations import to_json, to_markdown
from feedback_store.records import AnswerStatus
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.listing import title_of
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import PLAIN
from tests.feedback_store.conftest import Conversations as Talk


@pytest.fixture
def conversations(store: FeedbackStore, database: Database) -> Conversations:
    return Conversations(database)


def shown(conversations: Conversations, conversation_id: str = "c1") -> list[tuple[str, str]]:
    """Question and answer of each turn that is shown."""
    turns = conversations.view(conversation_id, "ann").turns
    return [(turn.turn.question, turn.answer.text) for turn in turns]


def ids(conversations: Conversations, user: str = "ann") -> list[str]:
    return [summary.id for summary in conversations.page(user)]


def last(conversations: Conversations) -> ShownTurn:
    return conversations.view("c1", "ann").turns[-1]


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


# Branches


def test_a_view_is_the_branch_that_ends_in_the_newest_answer(
    store: FeedbackStore, talk: Talk, conversations: Conversations
) -> None:
    one = talk.ask("Q1", "A1", conversation="c1")
    talk.ask("Q2", "A2", conversation="c1", parent=one)
    assert shown(conversations) == [("Q1", "A1"), ("Q2", "A2")]
    edited = talk.ask("Q2 edited", "A3", conversation="c1", parent=one)
    assert shown(conversations) == [("Q1", "A1"), ("Q2 edited", "A3")]
    again = talk.again(edited, "A4")
    turn = last(conversations)
    assert (turn.answer.text, turn.answers) == ("A4", (edited, again))
    assert turn.siblings == tuple(
        store.turn_of(a, "ann").id for a in _answers_to(store, "Q2", "Q2 edited")
    )
    talk.again(one, "A1 again")  # nothing follows it yet
    assert shown(conversations) == [("Q1", "A1 again")]


def _answers_to(store: FeedbackStore, *questions: str) -> list[str]:
    """An answer to each of the questions."""
    query = select(t.answers.c.id).join(t.turns, t.turns.c.id == t.answers.c.turn_id)
    with store._database.read() as connection:
        return [
            connection.execute(
                query.where(t.turns.c.question == question).order_by(t.answers.c.created_at)
            )
            .scalars()
            .first()
            or ""
            for question in questions
        ]


def test_a_branch_is_shown_down_to_the_newest_leaf_below(
    store: FeedbackStore, talk: Talk, conversations: Conversations
) -> None:
    """
    Q1 -- A1 -- Q2 -- A2 -- Q3 -- A3    (the oldest)
       |     `- Q2' - A4 -- Q4 -- A5    (the newest below A1)
       `- A6 -- Q5 -- A7
    """
    a1 = talk.ask("Q1", "A1")
    a2 = talk.ask("Q2", "A2", parent=a1)
    talk.ask("Q3", "A3", parent=a2)
    a4 = talk.ask("Q2'", "A4", parent=a1)
    talk.ask("Q4", "A5", parent=a4)
    a6 = talk.again(a1, "A6")
    talk.ask("Q5", "A7", parent=a6)

    def answers() -> list[str]:
        return [text for _, text in shown(conversations)]

    assert answers() == ["A6", "A7"]
    conversations.show("c1", "ann", a1)
    assert answers() == ["A1", "A4", "A5"]
    conversations.show("c1", "ann", a2)
    assert answers() == ["A1", "A2", "A3"]
    conversations.show_turn("c1", "ann", store.turn_of(a4, "ann").id)
    assert answers() == ["A1", "A4", "A5"]
    conversations.show_turn("c1", "ann", store.turn_of(a1, "ann").id)
    assert answers() == ["A6", "A7"]
    other = talk.ask("Q", "A", conversation="c2")
    with pytest.raises(UnknownId, match="in this conversation"):
        conversations.show("c1", "ann", other)
    with pytest.raises(UnknownId, match="in this conversation"):
        conversations.show_turn("c1", "ann", store.turn_of(other, "ann").id)
    assert answers() == ["A6", "A7"]


def test_what_a_person_says_now_is_with_each_answer(
    store: FeedbackStore, talk: Talk, conversations: Conversations
) -> None:
    one = talk.ask("Q1", "A1")
    two = talk.ask("Q2", "A2", parent=one)
    store.vote(one, "ann", 1, reasons=["safe"], comment="Nice.")
    store.vote(two, "ann", 1)
    store.vote(two, "ann", -1, reasons=["too_long", "other"], comment="Hm.")
    store.correct(two, "ann", "First.")
    store.correct(two, "ann", "Second.")
    store.note(two, "ann", "flag")
    store.note(one, "ann", "copy")
    first, second = conversations.view("c1", "ann").turns
    assert (first.vote, first.reasons, first.comment, first.correction, first.flagged) == (
        1,
        ("safe",),
        "Nice.",
        None,
        False,
    )
    assert (second.vote, second.reasons, second.comment, second.correction, second.flagged) == (
        -1,
        ("other", "too_long"),
        "Hm.",
        "Second.",
        True,
    )
    store.vote(two, "ann", 0)
    assert (last(conversations).vote, last(conversations).reasons) == (0, ())


def test_an_answer_that_is_being_made_is_shown(
    store: FeedbackStore, talk: Talk, conversations: Conversations
) -> None:
    turn = store.add_turn(
        user_id="ann", question="Q", template=PLAIN, conversation_id="c1", example_ids=["e1", "e2"]
    )
    assert conversations.view("c1", "ann").turns == ()  # nothing answers it yet
    answer_id = talk.begin(turn.id)
    store.save_partial(answer_id, "So f", "Hm.")
    found = last(conversations)
    assert found.answer == store.answer(answer_id, "ann")
    assert (found.answer.status, found.answer.text) == ("streaming", "So f")
    assert (found.turn, found.example_ids) == (turn, ("e1", "e2"))


def test_a_long_conversation_is_read_with_a_handful_of_queries(
    talk: Talk, conversations: Conversations, database: Database
) -> None:
    answer = None
    for number in range(20):
        answer = talk.ask(f"Q{number}", f"A{number}", parent=answer)
    statements: list[object] = []
    event.listen(database._engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    assert len(conversations.view("c1", "ann").turns) == 20
    assert len(statements) <= 7  # the beginning of the transaction included


# Continuing an answer


@pytest.mark.parametrize("status", ["stopped", "aborted", "failed", "done"])
def test_an_answer_that_ended_early_goes_on(
    store: FeedbackStore, talk: Talk, database: Database, status: AnswerStatus
) -> None:
    answer_id = talk.begin(store.turn_of(talk.ask(), "ann").id)
    store.finish_answer(
        answer_id, status=status, text="A gr", thought="Hm.", first_token_at=2.0, error="E"
    )
    was = store.reopen_answer(answer_id, "ann")
    assert (was.status, was.text, was.error) == (status, "A gr", "E")
    assert store.answer(answer_id, "ann").status == "streaming"
    store.save_partial(answer_id, "A green", "Hm.")
    assert store.answer(answer_id, "ann").text == "A green"
    store.finish_answer(
        answer_id,
        status="done",
        text="A green leaf.",
        thought="Hm.",
        complete=True,
        first_token_at=9.0,
    )
    now = store.answer(answer_id, "ann")
    assert (now.status, now.text, now.complete, now.error) == ("done", "A green leaf.", True, None)
    assert now.first_token_at == 2.0  # a person waited for the first one
    with database.read() as connection:
        stale = list(connection.execute(select(t.stale.c.conversation_id)).scalars())
    assert stale == ["c1"]


def test_the_examples_of_a_continued_answer_are_derived_anew_at_both_ends(
    store: FeedbackStore, talk: Talk, database: Database
) -> None:
    def stale() -> list[str]:
        with database.write() as connection:
            found = list(connection.execute(select(t.stale.c.conversation_id)).scalars())
            connection.execute(t.stale.delete())
            return found

    answer_id = talk.begin(store.turn_of(talk.ask(), "ann").id)
    talk.finish(answer_id, "A gr", "stopped")
    assert stale() == []
    with database.write() as connection:
        connection.execute(update(t.answers).values(complete=0))
    store.reopen_answer(answer_id, "ann")
    assert stale() == ["c1"]
    talk.finish(answer_id, "A green leaf.")
    assert stale() == ["c1"]


def test_any_other_answer_cannot_be_continued(store: FeedbackStore, talk: Talk) -> None:
    done = talk.ask()
    streaming = talk.begin(store.turn_of(done, "ann").id)
    with pytest.raises(Conflict, match="has its end"):
        store.reopen_answer(done, "ann")
    with pytest.raises(Conflict, match="still being made"):
        store.reopen_answer(streaming, "ann")
    for answer_id, user in ((done, "bob"), ("unknown", "ann")):
        with pytest.raises(UnknownId):
            store.reopen_answer(answer_id, user)


# Files to keep


def test_the_shown_branch_as_markdown(
    store: FeedbackStore, talk: Talk, conversations: Conversations
) -> None:
    one = talk.ask("What is a leaf?", "A leaf.")
    talk.again(one, "Another.")
    conversations.show("c1", "ann", one)
    talk.ask("And a root?", "Below.\n", parent=one)
    store.vote(one, "ann", -1, reasons=["too_short", "other"], comment="Say\nmore.")
    store.correct(one, "ann", "A green part.\n\nOf a plant.")
    store.note(one, "ann", "flag")
    assert (
        to_markdown(conversations.view("c1", "ann"))
        == """\
# What is a leaf?

## Question

What is a leaf?

## Answer

A leaf.

> Vote: bad (other, too short)

> Comment: Say
> more.

> Flagged: not to be used

> Correction:
> A green part.
>
> Of a plant.

## Question

And a root?

## Answer

Below.
"""
    )


def test_the_shown_branch_as_json(
    store: FeedbackStore, talk: Talk, conversations: Conversations
) -> None:
    turn = store.add_turn(
        user_id="ann", question="Q", template=PLAIN, conversation_id="c1", example_ids=["e1"]
    )
    answer_id = store.begin_answer(
        turn.id, base_digest="sha256:b", adapter_digest="sha256:a", sampling={"top_p": 0.5}, seed=7
    )
    store.finish_answer(
        answer_id,
        status="done",
        text="A",
        thought="Hm.",
        complete=True,
        prompt_tokens=3,
        completion_tokens=2,
        first_token_at=1.5,
    )
    store.vote(answer_id, "ann", 1, reasons=["safe"])
    view = conversations.view("c1", "ann")
    (only,) = view.turns
    whole = to_json(view)
    assert (
        json.loads(json.dumps(whole))
        == whole
        == {
            "id": "c1",
            "title": "Q",
            "pinned": False,
            "updated_at": view.summary.updated_at,
            "turns": [
                {
                    "id": turn.id,
                    "asked_at": only.created_at,
                    "question": "Q",
                    "mode": "plain",
                    "example_ids": ["e1"],
                    "answer": {
                        "id": answer_id,
                        "status": "done",
                        "complete": True,
                        "text": "A",
                        "thought": "Hm.",
                        "base": "sha256:b",
                        "adapter": "sha256:a",
                        "sampling": {"top_p": 0.5},
                        "seed": 7,
                        "prompt_tokens": 3,
                        "completion_tokens": 2,
                        "begun_at": only.answer.created_at,
                        "first_token_at": 1.5,
                        "finished_at": only.answer.finished_at,
                        "error": None,
                    },
                    "vote": 1,
                    "reasons": ["safe"],
                    "comment": "",
                    "correction": None,
                    "flagged": False,
                }
            ],
        }
    )
