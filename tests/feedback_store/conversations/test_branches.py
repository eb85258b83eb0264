"""The branch of a conversation that is shown, and answers that are continued."""

from __future__ import annotations

import pytest
from sqlalchemy import event, select, update

from engine.errors import Conflict, UnknownId
from feedback_store.conversations.conversation_list import Conversations
from feedback_store.records import AnswerStatus
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import PLAIN
from tests.feedback_store.conftest import Conversations as Talk
from tests.feedback_store.conversations.views import last, shown


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
