"""A person's corrections and liked answers as examples: whose, which, and when no longer."""

from __future__ import annotations

import time

import pytest

from engine.errors import UnknownId
from feedback_store.curation.decisions import Curation
from feedback_store.personal.own_examples import MAX_EXAMPLE_CHARS, OwnExample, OwnExamples
from feedback_store.privacy.erasure import forget_before, forget_user
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import PLAIN, Conversations

OAK, ELM = "How tall is an oak tree?", "How tall is an elm tree?"
BREAD = "Give me a recipe for bread."


@pytest.fixture
def own(database: Database, curation: Curation) -> OwnExamples:
    return OwnExamples(database, curation)


def texts(examples: tuple[OwnExample, ...]) -> list[tuple[str, str, str]]:
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
        store.vote(oak, "ann", vote)  # type: ignore[arg-type]
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


def test_nobody_sees_what_another_person_said(
    own: OwnExamples, store: FeedbackStore, talk: Conversations
) -> None:
    oak = talk.ask(OAK, "Tall.")
    store.correct(oak, "ann", "30 m.")
    assert own.of("bob") == own.similar("bob", OAK) == ()
    with pytest.raises(UnknownId):
        own.remove("bob", oak)
    # A turn of Bob's that claims Ann's example by its reference
    (reference,) = (example.reference for example in own.of("ann"))
    turn = store.add_turn(
        user_id="bob", question=ELM, template=PLAIN, conversation_id="b", example_ids=[reference]
    )
    answer = talk.finish(talk.begin(turn.id), "40 m.")
    assert own.used("bob", answer) == own.still_used("bob", answer) == ()
    with pytest.raises(UnknownId):
        own.used("ann", answer)


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
    assert own.of("ann") == own.similar("ann", OAK) == ()
    curation.set_consent("ann", True)
    assert answers(own) == ["30 m."]
    assert OwnExamples(database, Curation(database, consent_by_default=False)).of("bob") == ()


def test_what_is_removed_is_gone_at_once_and_comes_back_when_restored(
    own: OwnExamples, store: FeedbackStore, talk: Conversations
) -> None:
    oak, elm = talk.ask(OAK), talk.ask(ELM)
    store.correct(oak, "ann", "30 m.")
    store.correct(elm, "ann", "40 m.")
    own.remove("ann", oak)
    own.remove("ann", oak)
    store.correct(oak, "ann", "31 m.")
    assert (answers(own), own.removed("ann")) == (["40 m."], {oak})
    own.restore("ann", oak)
    assert (answers(own), own.removed("ann")) == (["31 m.", "40 m."], frozenset())


def test_what_is_forgotten_is_gone_at_once_also_where_only_some_of_it_is(
    own: OwnExamples, store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    old = talk.ask(OAK, conversation="old")
    store.correct(old, "ann", "30 m.")
    moment = time.time()
    new = talk.ask(ELM, conversation="new")
    store.correct(new, "ann", "40 m.")
    used = [example.reference for example in own.of("ann")]
    turn = store.add_turn(
        user_id="ann", question=OAK, template=PLAIN, conversation_id="new", example_ids=used
    )
    answer = talk.finish(talk.begin(turn.id), "32 m.")
    assert answers(own) == [e.answer for e in own.used("ann", answer)] == ["40 m.", "30 m."]
    own.remove("ann", old)
    forget_before(database, moment)
    assert answers(own) == [e.answer for e in own.used("ann", answer)] == ["40 m."]
    forget_user(database, "ann")
    assert (own.of("ann"), own.removed("ann")) == ((), frozenset())


def test_similar_ones_are_found_the_most_similar_last_and_the_newest_of_equals(
    own: OwnExamples, store: FeedbackStore, talk: Conversations
) -> None:
    for number, (question, text) in enumerate(
        [(OAK, "old"), (ELM, "40 m."), (BREAD, "Flour."), (OAK, "new"), ("An oak, how tall?", "!")]
    ):
        store.correct(talk.ask(question, conversation=str(number)), "ann", text)
    # "tall", "oak" and "tree" are in three, two and two of 105 documents (100 of them padding)
    assert [e.answer for e in own.similar("ann", OAK)] == ["40 m.", "!", "new"]
    assert [e.answer for e in own.similar("ann", OAK, most=1)] == ["new"]
    assert [e.answer for e in own.similar("ann", "A bread recipe?")] == ["Flour."]
    assert own.similar("ann", "Who painted the Mona Lisa?") == ()


def test_only_a_liked_answer_brings_its_thought(
    own: OwnExamples, store: FeedbackStore, talk: Conversations
) -> None:
    thought = "<think>\nTrees are tall.\n</think>"
    for question, liked in ((OAK, True), (ELM, False)):
        answer = talk.ask(question)
        store.finish_answer(answer, status="done", text="30 m.", thought=thought)
        if liked:
            store.vote(answer, "ann", 1)
        else:
            store.correct(answer, "ann", "40 m.")
    assert [(e.answer, e.thought) for e in own.of("ann")] == [
        ("40 m.", ""),
        ("30 m.", "Trees are tall."),
    ]
    assert [e.answer for e in own.similar("ann", ELM, with_thought=True)] == ["30 m."]


def test_what_was_used_may_be_shown_again_unless_it_was_removed_or_replaced(
    own: OwnExamples, store: FeedbackStore, talk: Conversations
) -> None:
    oak, elm = talk.ask(OAK), talk.ask(ELM)
    store.correct(oak, "ann", "30 m.")
    store.correct(elm, "ann", "40 m.")
    used = [example.reference for example in own.of("ann")]
    turn = store.add_turn(
        user_id="ann", question=OAK, template=PLAIN, conversation_id="c1", example_ids=used
    )
    answer = talk.finish(talk.begin(turn.id), "32 m.")
    assert own.still_used("ann", answer) == own.used("ann", answer) == own.of("ann")
    own.remove("ann", elm)
    assert [e.answer for e in own.still_used("ann", answer)] == ["30 m."]
    store.correct(oak, "ann", "31 m.")
    assert own.still_used("ann", answer) == ()
    assert [e.answer for e in own.used("ann", answer)] == ["40 m.", "30 m."]
