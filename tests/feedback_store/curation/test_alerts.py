"""Votes that look arranged are shown to the operator, with the text they are about."""

from __future__ import annotations

from engine.messages import Message
from feedback_store.curation.alerts import find_alerts
from feedback_store.curation.bursts import PACE_VOTES
from feedback_store.records import ImportedAnswer, ImportedTurn, ImportedVote
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import PLAIN, Conversations

FAST = PACE_VOTES + 1  # within the seconds that this test takes: faster than a person reads


def vote_fast(store: FeedbackStore, talk: Conversations) -> list[str]:
    """One more vote of Ann's than anybody could cast in a minute; returns the answers."""
    answers = [talk.ask(text=f"Answer {number}.") for number in range(FAST)]
    for answer_id in answers:
        store.vote(answer_id, "ann", -1)
    return answers


def test_votes_faster_than_a_person_reads_are_shown_with_a_text(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    answers = vote_fast(store, talk)
    (alert,) = find_alerts(database, since=0)
    assert (alert["kind"], alert["users"], alert["vote"]) == ("pace", ["ann"], -1)
    assert (alert["count"], alert["text"]) == (FAST, "Answer 0.")
    assert alert["answer_ids"] == tuple(answers)


def test_votes_before_the_moment_asked_for_are_left_out(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    vote_fast(store, talk)
    (alert,) = find_alerts(database, since=0)
    assert find_alerts(database, since=alert["end"] + 1) == []


def test_people_who_vote_at_their_own_pace_raise_no_alarm(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    for number in range(5):
        store.vote(talk.ask(text=f"Answer {number}."), "ann", 1)
    assert find_alerts(database, since=0) == []


def test_imported_votes_raise_no_alarm_though_they_all_come_at_once(
    store: FeedbackStore, database: Database
) -> None:
    turns = [
        ImportedTurn(
            (Message("user", f"Question {number}?"),),
            (ImportedAnswer("The same answer.", votes=(ImportedVote("bob", 1),)),),
        )
        for number in range(FAST)
    ]
    store.add_imported(turns, PLAIN, "ann")
    assert find_alerts(database, since=0) == []
