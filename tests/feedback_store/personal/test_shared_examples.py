"""Answers that the operator shares with everybody: what can be approved, and how long it holds."""

from __future__ import annotations

import pytest

from engine.errors import Conflict, UnknownId
from feedback_store.conversations import conversation_list
from feedback_store.curation.decisions import Curation
from feedback_store.personal.example_pool import MAX_EXAMPLE_CHARS
from feedback_store.personal.feedback_examples import FeedbackExamples
from feedback_store.personal.shared_examples import SharedExamples
from feedback_store.privacy.erasure import forget_conversations, forget_user
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import Conversations

OAK, ELM = "How tall is an oak tree?", "How tall is an elm tree?"


@pytest.fixture
def liked(store: FeedbackStore, talk: Conversations) -> str:
    """An answer of Ann's with her thumb up."""
    answer_id = talk.ask(OAK, "30 m.")
    store.vote(answer_id, "ann", 1)
    return answer_id


@pytest.fixture
def corrected(store: FeedbackStore, talk: Conversations) -> str:
    """An answer of Bob's with his correction."""
    answer_id = talk.ask(ELM, "Tall.", user="bob", conversation="c2")
    store.correct(answer_id, "bob", "40 m.")
    return answer_id


def texts(shared: SharedExamples) -> list[str]:
    return [example.answer for example in shared.examples()]


def refusals(shared: SharedExamples) -> list[str]:
    return [approval.refusal for approval in shared.approvals()]


def test_what_is_approved_is_shared_until_it_is_withdrawn(
    shared: SharedExamples, liked: str, corrected: str
) -> None:
    assert texts(shared) == []
    assert shared.approve(liked).answer == "30 m."
    example = shared.approve(corrected)
    assert (example.id, example.source, example.answer, example.is_shared) == (
        corrected,
        "correction",
        "40 m.",
        True,
    )
    assert texts(shared) == ["40 m.", "30 m."]  # the newest statement first
    assert [(a.answer_id, a.user_id, a.example) for a in shared.approvals()] == [
        (corrected, "bob", example),
        (liked, "ann", shared.examples()[1]),
    ]
    shared.withdraw(liked)
    assert (texts(shared), shared.answer_ids()) == (["40 m."], frozenset({corrected}))
    with pytest.raises(UnknownId, match="no approved answer"):
        shared.withdraw(liked)


def test_what_can_be_no_example_is_not_approved(
    shared: SharedExamples, store: FeedbackStore, talk: Conversations, curation: Curation
) -> None:
    silent, bad, flagged = (talk.ask(OAK, "30 m.") for _ in range(3))
    store.vote(bad, "ann", -1)
    store.vote(flagged, "ann", 1)
    store.note(flagged, "ann", "flag")
    streaming = talk.begin(store.turn_of(silent, "ann").id)
    store.vote(streaming, "ann", 1)
    broken = talk.finish(talk.begin(store.turn_of(silent, "ann").id), "3", status="aborted")
    long = talk.ask(OAK, "x" * (MAX_EXAMPLE_CHARS - len(OAK) + 1))
    follow_up = talk.ask("And now?", "31 m.", parent=silent)
    refusing = talk.ask(OAK, "30 m.", user="eve", conversation="e")
    for answer_id, user in ((broken, "ann"), (long, "ann"), (follow_up, "ann"), (refusing, "eve")):
        store.vote(answer_id, user, 1)
    curation.set_consent("eve", False)
    for answer_id, said in (
        (silent, "neither liked nor corrected"),
        (bad, "neither liked nor corrected"),
        (flagged, "wants it used no more"),
        (streaming, "neither liked nor corrected"),
        (broken, "broken off"),
        (long, "2001 characters with its question; the limit is 2000"),
        (follow_up, "means nothing without"),
        (refusing, "does not consent"),
    ):
        with pytest.raises(Conflict, match=said):
            shared.approve(answer_id)
    for unknown in ("0" * 32, ""):
        with pytest.raises(UnknownId, match="no answer"):
            shared.approve(unknown)
    assert shared.answer_ids() == frozenset()


def test_the_opinion_of_another_than_who_asked_makes_no_example(
    shared: SharedExamples, corrected: str, store: FeedbackStore
) -> None:
    with pytest.raises(UnknownId):
        store.vote(corrected, "ann", 1)
    store.vote(corrected, "bob", -1)
    assert shared.approve(corrected).answer == "40 m."


def test_a_thumb_that_is_taken_back_takes_the_example_along(
    shared: SharedExamples, liked: str, store: FeedbackStore
) -> None:
    shared.approve(liked)
    store.vote(liked, "ann", 0)
    assert texts(shared) == []
    assert refusals(shared)[0].startswith("the answer is no example: the person who asked has")
    store.vote(liked, "ann", 1, reasons=["safe"])
    assert (texts(shared), refusals(shared)) == (["30 m."], [""])


def test_words_that_the_operator_has_not_seen_are_shown_to_nobody(
    shared: SharedExamples, liked: str, corrected: str, store: FeedbackStore
) -> None:
    shared.approve(liked)
    shared.approve(corrected)
    store.correct(corrected, "bob", "41 m.")
    store.correct(liked, "ann", "31 m.")
    assert texts(shared) == []
    assert all("approve it again" in refusal for refusal in refusals(shared))
    assert shared.approve(corrected).answer == "41 m."
    assert texts(shared) == ["41 m."]
    assert [approval.answer_id for approval in shared.approvals()] == [corrected, liked]


def test_a_liked_answer_that_goes_on_is_approved_anew(
    shared: SharedExamples, store: FeedbackStore, talk: Conversations
) -> None:
    first = talk.ask(OAK)
    stopped = talk.finish(talk.begin(store.turn_of(first, "ann").id), "30", status="stopped")
    store.vote(stopped, "ann", 1)
    shared.approve(stopped)
    assert texts(shared) == ["30"]
    store.reopen_answer(stopped, "ann")
    assert texts(shared) == []
    talk.finish(stopped, "30 m.")
    assert texts(shared) == []
    shared.approve(stopped)
    assert texts(shared) == ["30 m."]


def test_consent_is_asked_each_time(
    shared: SharedExamples, liked: str, corrected: str, curation: Curation, database: Database
) -> None:
    shared.approve(liked)
    shared.approve(corrected)
    curation.set_consent("ann", False)
    assert texts(shared) == ["40 m."]
    assert ["does not consent" in refusal for refusal in refusals(shared)] == [False, True]
    curation.set_consent("ann", True)
    assert texts(shared) == ["40 m.", "30 m."]
    opt_in = SharedExamples(database, Curation(database, consent_by_default=False))
    assert texts(opt_in) == ["30 m."]  # only Ann has said yes


def test_what_its_author_flags_removes_or_deletes_is_shared_no_more(
    shared: SharedExamples,
    examples: FeedbackExamples,
    store: FeedbackStore,
    talk: Conversations,
    liked: str,
    corrected: str,
    database: Database,
) -> None:
    third = talk.ask("How tall is a birch?", "20 m.", user="eve", conversation="c3")
    store.vote(third, "eve", 1)
    for answer_id in (liked, corrected, third):
        shared.approve(answer_id)
    examples.remove("bob", corrected)
    assert texts(shared) == ["20 m.", "30 m."]
    examples.restore("bob", corrected)
    store.note(liked, "ann", "flag")
    assert texts(shared) == ["20 m.", "40 m."]
    listed = conversation_list.Conversations(database)
    listed.delete("c3", "eve")
    assert texts(shared) == ["40 m."]
    listed.restore("c3", "eve")
    assert texts(shared) == ["20 m.", "40 m."]


def test_what_is_erased_is_shared_no_more_and_its_approval_is_gone(
    shared: SharedExamples, liked: str, corrected: str, database: Database
) -> None:
    shared.approve(liked)
    shared.approve(corrected)
    forget_conversations(database, ["c2"])
    assert (texts(shared), shared.answer_ids()) == (["30 m."], frozenset({liked}))
    forget_user(database, "ann")
    assert (texts(shared), shared.approvals()) == ([], [])
