"""Counts of what people said: after any history what the view of current statements says."""

from __future__ import annotations

import sqlalchemy as sa

from feedback_store.privacy.erasure import forget_user
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import Conversations


def by_the_view(database: Database) -> dict[tuple[str, int | None], int]:
    """Current statements by kind and vote."""
    said = sa.table("current_feedback", *(sa.column(c.name, c.type) for c in t.events.c)).c
    query = sa.select(said.kind, said.vote, sa.func.count()).group_by(said.kind, said.vote)
    with database.read() as connection:
        return {(kind, vote): n for kind, vote, n in connection.execute(query).all() if vote != 0}


def test_a_later_statement_takes_the_place_of_one_that_was_counted(
    store: FeedbackStore, talk: Conversations
) -> None:
    answer = talk.ask()
    store.vote(answer, "ann", 1)
    assert (store.counts()["votes_up"], store.counts()["votes_down"]) == (1, 0)
    store.vote(answer, "ann", -1)
    store.vote(answer, "ann", 1)
    store.vote(answer, "ann", -1)  # of three new ones only the last counts
    assert (store.counts()["votes_up"], store.counts()["votes_down"]) == (0, 1)
    store.vote(answer, "ann", 0)
    assert store.counts()["votes"] == 0
    store.vote(answer, "ann", 1)
    assert store.counts()["votes"] == 1


def test_corrections_and_choices_count_once_and_deeds_each_time(
    store: FeedbackStore, talk: Conversations
) -> None:
    answer = talk.ask()
    other = talk.again(answer, "A tree.")
    comparison = store.compare(answer, other, "ann").id
    for text in ("First.", "Second."):
        store.correct(answer, "ann", text)
        store.choose(comparison, "ann", "left")
        store.note(answer, "ann", "copy")
        counts = store.counts()
        assert (counts["corrections"], counts["comparisons"]) == (1, 1)
    assert counts["copies"] == 2


def test_two_readers_count_alike_whenever_they_began(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    answers = [talk.ask(conversation=f"c{n}") for n in range(5)]
    for round_ in range(4):
        for n, answer in enumerate(answers):
            store.vote(answer, "ann", (1, -1, 0)[(n + round_) % 3])
        assert store.counts() == FeedbackStore(database).counts()
        view = by_the_view(database)
        assert store.counts()["votes_up"] == view.get(("vote", 1), 0)
        assert store.counts()["votes_down"] == view.get(("vote", -1), 0)


def test_who_is_forgotten_is_not_counted(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    store.vote(talk.ask(), "ann", 1)
    store.vote(talk.ask(user="bob", conversation="c2"), "bob", 1)
    assert store.counts()["votes"] == 2
    forget_user(database, "bob")
    counts = store.counts()
    assert (counts["votes"], counts["turns"], counts["answers"]) == (1, 1, 1)
