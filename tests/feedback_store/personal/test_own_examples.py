"""A person's corrections and liked answers as examples: whose, which, and when no longer."""

from __future__ import annotations

from feedback_store.conversations import conversation_list
from feedback_store.curation.decisions import Curation
from feedback_store.personal.example_pool import MAX_EXAMPLE_CHARS, FeedbackExample
from feedback_store.personal.own_examples import OwnExamples
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import Conversations

OAK, ELM = "How tall is an oak tree?", "How tall is an elm tree?"


def texts(examples: tuple[FeedbackExample, ...]) -> list[tuple[str, str, str]]:
    return [(e.source, e.question, e.answer) for e in examples]


def answers(own: OwnExamples, user: str = "ann") -> list[str]:
    return [example.answer for example in own.of(user)]


def test_a_correction_and_a_liked_answer_are_examples_the_newest_first(
    own: OwnExamples, store: FeedbackStore, talk: Conversations
) -> None:
    oak, elm = talk.ask(OAK, "Tall."), talk.ask(ELM, "40 m.", conversation="c2")
    store.correct(oak, "ann", " 30 m. \n")
    store.vote(elm, "ann", 1)
    assert texts(own.of("ann")) == [("like", ELM, "40 m."), ("correction", OAK, "30 m.")]
    assert [(e.id, e.event_id) for e in own.of("ann")] == [(elm, 2), (oak, 1)]


def test_the_latest_correction_counts_and_beats_any_thumb(
    own: OwnExamples, store: FeedbackStore, talk: Conversations
) -> None:
    oak = talk.ask(OAK, "Tall.")
    for correction in ("Thirty.", "30 m."):
        store.correct(oak, "ann", correction)
    for vote in (1, -1):
        store.vote(oak, "ann", vote)
        assert texts(own.of("ann")) == [("correction", OAK, "30 m.")]


def test_a_thumb_that_was_turned_or_cleared_is_none(
    own: OwnExamples, store: FeedbackStore, talk: Conversations
) -> None:
    oak = talk.ask(OAK, "30 m.")
    store.vote(oak, "ann", 1)
    assert answers(own) == ["30 m."]
    store.vote(oak, "ann", -1)
    assert answers(own) == []
    store.vote(oak, "ann", 1)
    assert answers(own) == ["30 m."]
    store.vote(oak, "ann", 0)
    assert answers(own) == []


def test_a_correction_that_was_taken_back_is_none_and_a_thumb_counts_again(
    own: OwnExamples, store: FeedbackStore, talk: Conversations
) -> None:
    oak = talk.ask(OAK, "Tall.")
    store.correct(oak, "ann", "30 m.")
    store.withdraw(oak, "ann")
    assert answers(own) == []
    store.vote(oak, "ann", 1)
    assert texts(own.of("ann")) == [("like", OAK, "Tall.")]


def test_what_is_flagged_empty_broken_off_or_long_is_none(
    own: OwnExamples, store: FeedbackStore, talk: Conversations
) -> None:
    flagged, blank = talk.ask(OAK, "30 m."), talk.ask(OAK, " \n")
    turn = store.turn_of(flagged, "ann").id
    aborted = talk.finish(talk.begin(turn), "30", status="aborted")
    long = talk.ask(OAK, "x" * (MAX_EXAMPLE_CHARS - len(OAK) + 1))
    for answer in (flagged, blank, aborted, long):
        store.vote(answer, "ann", 1)
    store.note(flagged, "ann", "flag")
    assert answers(own) == []
    fits = talk.ask(OAK, "x" * (MAX_EXAMPLE_CHARS - len(OAK)))
    store.vote(fits, "ann", 1)
    assert [e.id for e in own.of("ann")] == [fits]
    store.correct(flagged, "ann", "31 m.")  # flagged: not to be used
    store.correct(aborted, "ann", "32 m.")  # the person's words need no answer
    assert answers(own)[0] == "32 m." and len(own.of("ann")) == 2


def test_what_is_said_of_an_answer_in_the_making_counts_from_its_end(
    own: OwnExamples, store: FeedbackStore, talk: Conversations
) -> None:
    streaming = talk.begin(store.turn_of(talk.ask(OAK), "ann").id)
    store.vote(streaming, "ann", 1)
    assert answers(own) == []
    talk.finish(streaming, "30 m.")
    assert answers(own) == ["30 m."]


def test_a_follow_up_that_means_nothing_alone_is_none(
    own: OwnExamples, store: FeedbackStore, talk: Conversations
) -> None:
    first = talk.ask(OAK, "30 m.")
    for question in ("And now?", "Shorter!", ELM):
        store.vote(talk.ask(question, question, parent=first), "ann", 1)
    assert answers(own) == [ELM]


def test_without_consent_there_are_none_until_it_is_given(
    own: OwnExamples,
    store: FeedbackStore,
    talk: Conversations,
    curation: Curation,
    database: Database,
) -> None:
    store.correct(talk.ask(OAK), "ann", "30 m.")
    assert answers(own) == ["30 m."]
    curation.set_consent("ann", False)
    assert (answers(own), [*own.ranked("ann", OAK)]) == ([], [])
    curation.set_consent("ann", True)
    assert answers(own) == ["30 m."]
    assert OwnExamples(database, Curation(database, consent_by_default=False)).of("bob") == ()


def test_a_conversation_that_is_deleted_takes_its_examples_along_until_it_is_restored(
    own: OwnExamples, store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    listed = conversation_list.Conversations(database)
    store.correct(talk.ask(OAK), "ann", "30 m.")
    assert answers(own) == ["30 m."]
    listed.delete("c1", "ann")
    assert answers(own) == []
    listed.restore("c1", "ann")
    assert answers(own) == ["30 m."]
