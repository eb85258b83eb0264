"""Votes, corrections and comparisons: the last counts, and the history stays."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select

from engine.errors import InvalidInput, InvalidText, UnknownId
from feedback_store.records import BAD_REASONS, GOOD_REASONS
from feedback_store.storage import tables
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import Conversations
from tests.feedback_store.storage.contents import everything, only_evidence


def current_votes(database: Database) -> list[tuple[str, int]]:
    """(answer id, vote) of every vote that counts now."""
    return [(v.answer_id, v.vote) for e in EvidenceReader(database).all() for v in e.votes]


# Votes and corrections


def test_a_flipped_vote_counts_once_with_its_last_value(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    answer_id = talk.ask()
    store.vote(answer_id, "ann", 1)
    store.vote(answer_id, "ann", -1)
    assert current_votes(database) == [(answer_id, -1)]
    assert store.event_count() == 2  # history is kept


def test_a_cleared_vote_is_no_vote(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    answer_id = talk.ask()
    store.vote(answer_id, "ann", 1)
    assert (store.counts()["votes"], store.counts()["votes_up"]) == (1, 1)
    store.vote(answer_id, "ann", 0)
    assert (store.counts()["votes"], store.counts()["votes_up"]) == (0, 0)
    assert current_votes(database) == []


def test_a_replayed_vote_neither_counts_twice_nor_undoes_a_later_one(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    answer_id = talk.ask()
    store.vote(answer_id, "ann", 1, idempotency_key="first")
    store.vote(answer_id, "ann", 1, idempotency_key="first")
    assert store.event_count() == 1
    store.vote(answer_id, "ann", -1, idempotency_key="second")
    store.vote(answer_id, "ann", 1, idempotency_key="first")
    assert current_votes(database) == [(answer_id, -1)]


def test_two_users_may_use_the_same_key(store: FeedbackStore, talk: Conversations) -> None:
    store.vote(talk.ask(user="ann"), "ann", 1, idempotency_key="1")
    store.vote(talk.ask(user="bob", conversation="c2"), "bob", 1, idempotency_key="1")
    assert store.counts()["votes"] == 2


@pytest.mark.parametrize("vote", [1, -1])
def test_reasons_and_comment_are_kept_with_the_vote(
    store: FeedbackStore, talk: Conversations, database: Database, vote: Any
) -> None:
    answer_id = talk.ask()
    reasons = GOOD_REASONS if vote > 0 else BAD_REASONS
    comment = "Weiß ich nicht; 'ne Frage? 好"
    store.vote(answer_id, "ann", vote, reasons=[*reasons, reasons[0]], comment=comment)
    (said,) = only_evidence(database).votes
    assert (said.vote, said.comment) == (vote, comment)
    assert said.reasons == tuple(sorted(reasons))  # each once


def test_a_later_vote_has_its_own_reasons_or_none(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    answer_id = talk.ask()
    store.vote(answer_id, "ann", -1, reasons=["too_long"], comment="Endless.")
    store.vote(answer_id, "ann", 1)
    (said,) = only_evidence(database).votes
    assert (said.vote, said.reasons, said.comment) == (1, (), "")


@pytest.mark.parametrize(
    ("vote", "reasons", "known"),
    [
        (-1, ["boring"], BAD_REASONS),
        (-1, ["too_long", "right_facts"], BAD_REASONS),
        (1, ["wrong_facts"], GOOD_REASONS),
        (0, ["other"], ("none",)),
    ],
    ids=["unknown", "of a thumb up", "of a thumb down", "of no thumb"],
)
def test_a_word_that_is_no_reason_for_this_vote_is_refused_naming_those_that_are(
    store: FeedbackStore, talk: Conversations, vote: Any, reasons: list[str], known: tuple[str, ...]
) -> None:
    answer_id = talk.ask()
    with pytest.raises(InvalidInput) as refused:
        store.vote(answer_id, "ann", vote, reasons=reasons)
    assert repr(reasons[-1]) in str(refused.value)
    assert str(refused.value).endswith(f"known: {', '.join(known)}")
    assert store.event_count() == 0


@pytest.mark.parametrize("comment", ["a\x00b", "a\ud800", "a" * 4_001])
def test_a_comment_that_is_no_text_or_a_book_is_refused(
    store: FeedbackStore, talk: Conversations, comment: str
) -> None:
    answer_id = talk.ask()
    with pytest.raises(InvalidText, match="comment"):
        store.vote(answer_id, "ann", 1, comment=comment)
    with pytest.raises(InvalidText):
        store.vote(answer_id, "ann", 1, idempotency_key=comment)
    assert store.event_count() == 0


def test_the_last_correction_is_the_one_that_counts(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    answer_id = talk.ask()
    store.correct(answer_id, "ann", "Better.")
    store.correct(answer_id, "ann", "Best.")
    (said,) = only_evidence(database).corrections
    assert (said.answer_id, said.user_id, said.text) == (answer_id, "ann", "Best.")


@pytest.mark.parametrize("vote", [2, -2, 0.5])
def test_a_vote_is_up_down_or_cleared(store: FeedbackStore, talk: Conversations, vote: Any) -> None:
    answer_id = talk.ask()
    with pytest.raises(InvalidInput):
        store.vote(answer_id, "ann", vote)
    assert store.event_count() == 0


def test_twenty_tabs_voting_at_once_leave_one_current_vote_and_all_of_history(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    answer_id, together = talk.ask(), threading.Barrier(20)

    def vote(number: int) -> None:
        together.wait()
        store.vote(answer_id, "ann", 1 if number % 2 else -1)

    with ThreadPoolExecutor(20) as tabs:
        list(tabs.map(vote, range(20)))
    with database.read() as connection:
        query = select(tables.events.c.vote).order_by(tables.events.c.id)
        written = list(connection.scalars(query))
    assert sorted(written) == [-1] * 10 + [1] * 10
    assert current_votes(database) == [(answer_id, written[-1])]


# Comparisons and what is merely noted


def test_a_comparison_remembers_who_stood_where_and_the_last_choice_counts(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    one = talk.ask(text="A")
    other = talk.again(one, "B")
    comparison = store.compare(other, one, "ann")
    store.choose(comparison.id, "ann", "left", idempotency_key="first")
    store.choose(comparison.id, "ann", "both_bad")
    store.choose(comparison.id, "ann", "left", idempotency_key="first")  # a replay
    (said,) = only_evidence(database).choices
    assert (said.left_answer_id, said.right_answer_id) == (other, one)
    assert (said.user_id, said.choice) == ("ann", "both_bad")
    assert store.event_count() == 2


def test_only_two_answers_to_the_same_question_can_be_compared(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    one, elsewhere = talk.ask(), talk.ask("Another question?")
    before = everything(database)
    for other in (one, elsewhere):
        with pytest.raises(InvalidInput, match="same question"):
            store.compare(one, other, "ann")
    assert everything(database) == before


def test_answers_to_two_turns_with_the_very_same_messages_can_be_compared(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    one, two = talk.ask(text="One."), talk.ask(text="Two.")
    other, elsewhere = talk.ask("Another?"), talk.ask(conversation="c2")
    first, second = (store.compare(one, two, "ann", once=True) for _ in range(2))
    assert first.id == second.id
    store.choose(first.id, "ann", "right")
    evidence = only_evidence(database)
    assert [answer.text for answer in evidence.answers] == ["One.", "Two."]
    assert [choice.winner for choice in evidence.choices] == [two]
    for wrong in (other, elsewhere, one):
        with pytest.raises(InvalidInput, match="the same question"):
            store.compare(one, wrong, "ann", once=True)


def test_what_is_taken_back_counts_no_more_and_its_history_stays(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    one = talk.ask()
    two = talk.again(one, "A green thing.")
    store.vote(one, "ann", 1, reasons=["other"])
    store.correct(one, "ann", "A part of a tree.")
    store.choose(store.compare(two, one, "ann").id, "ann", "left")
    said = store.statements_on(one, "ann")
    assert said.vote is not None
    assert (said.vote.vote, said.correction) == (1, "A part of a tree.")
    assert [choice.winner for choice in said.choices] == [two]
    with pytest.raises(UnknownId):
        store.withdraw(one, "bob")
    counted = store.counts()
    assert (counted["votes"], counted["corrections"]) == (1, 1)
    for _ in range(2):
        store.withdraw(one, "ann")
    left = store.statements_on(one, "ann")
    assert (left.vote, left.correction, [each.choice for each in left.choices]) == (
        None,
        None,
        ["tie"],
    )
    counted = store.counts()
    assert (counted["votes"], counted["corrections"]) == (0, 0)
    assert counted == FeedbackStore(database).counts()  # which counts from nothing
    assert len(everything(database)["events"]) == 6
    (evidence,) = EvidenceReader(database).all()
    assert (evidence.votes, evidence.corrections) == ((), ())
    store.correct(one, "ann", "A leaf of a tree.")
    assert store.statements_on(one, "ann").correction == "A leaf of a tree."


def test_a_choice_is_one_of_four_words(store: FeedbackStore, talk: Conversations) -> None:
    one = talk.ask()
    comparison = store.compare(one, talk.again(one, "B"), "ann")
    with pytest.raises(InvalidInput, match="left, right, tie, both_bad"):
        store.choose(comparison.id, "ann", "neither")  # type: ignore[arg-type]
    assert store.event_count() == 0


def test_counts_are_of_what_holds_now_and_of_what_was_done(
    store: FeedbackStore, talk: Conversations
) -> None:
    first = talk.ask()
    second = talk.again(first, "Another.")
    comparison = store.compare(first, second, "ann")
    for _ in range(2):  # the second time changes what was said, or does the same once more
        store.vote(first, "ann", 1)
        store.vote(second, "ann", -1)
        store.correct(second, "ann", "Better.")
        store.choose(comparison.id, "ann", "tie")
        for kind in ("flag", "copy", "regeneration"):
            store.note(first, "ann", kind)
    assert store.counts() == {
        "turns": 1,
        "answers": 2,
        "votes": 2,
        "votes_up": 1,
        "votes_down": 1,
        "corrections": 1,
        "comparisons": 1,
        "flags": 1,
        "regenerations": 2,
        "copies": 2,
    }
    assert store.event_count() == 14


def test_the_operator_can_read_answers_whoever_they_are_for(
    store: FeedbackStore, talk: Conversations
) -> None:
    answers = {
        talk.ask(text=f"A{n}", user=f"user-{n}", conversation=f"c{n}"): f"A{n}" for n in range(3)
    }
    assert store.texts([*answers, *answers, "unknown"]) == answers
    assert store.texts([]) == {}


def test_two_people_may_use_the_same_idempotency_key(
    store: FeedbackStore, talk: Conversations
) -> None:
    for user in ("ann", "bob"):
        store.vote(talk.ask(user=user, conversation=user), user, 1, idempotency_key="1")
    assert store.counts()["votes_up"] == 2
