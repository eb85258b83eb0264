"""The examples in view of a question: the person's own first, then those shared with everybody."""

from __future__ import annotations

import time

import pytest

from engine.errors import UnknownId
from feedback_store.curation.decisions import Curation
from feedback_store.personal.example_pool import FeedbackExample
from feedback_store.personal.feedback_examples import FeedbackExamples
from feedback_store.personal.own_examples import OwnExamples
from feedback_store.personal.shared_examples import SharedExamples
from feedback_store.privacy.erasure import forget_before, forget_user
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import PLAIN, Conversations

OAK, ELM = "How tall is an oak tree?", "How tall is an elm tree?"
BREAD = "Give me a recipe for bread."


def answers(own: OwnExamples, user: str = "ann") -> list[str]:
    return [example.answer for example in own.of(user)]


def test_nobody_sees_what_another_person_said(
    own: OwnExamples, examples: FeedbackExamples, store: FeedbackStore, talk: Conversations
) -> None:
    oak = talk.ask(OAK, "Tall.")
    store.correct(oak, "ann", "30 m.")
    assert own.of("bob") == examples.similar("bob", OAK) == ()
    with pytest.raises(UnknownId):
        examples.remove("bob", oak)
    # A turn of Bob's that claims Ann's example by its reference
    (reference,) = (example.reference for example in own.of("ann"))
    turn = store.add_turn(
        user_id="bob", question=ELM, template=PLAIN, conversation_id="b", example_ids=[reference]
    )
    answer = talk.finish(talk.begin(turn.id), "40 m.")
    assert examples.used("bob", answer) == examples.still_used("bob", answer) == ()
    with pytest.raises(UnknownId):
        examples.used("ann", answer)


def test_what_is_removed_is_gone_at_once_and_comes_back_when_restored(
    own: OwnExamples, examples: FeedbackExamples, store: FeedbackStore, talk: Conversations
) -> None:
    oak, elm = talk.ask(OAK), talk.ask(ELM)
    store.correct(oak, "ann", "30 m.")
    store.correct(elm, "ann", "40 m.")
    examples.remove("ann", oak)
    examples.remove("ann", oak)
    store.correct(oak, "ann", "31 m.")
    assert (answers(own), examples.removed("ann")) == (["40 m."], frozenset({oak}))
    examples.restore("ann", oak)
    assert (answers(own), examples.removed("ann")) == (["31 m.", "40 m."], frozenset())


def test_what_is_forgotten_is_gone_at_once_also_where_only_some_of_it_is(
    own: OwnExamples,
    examples: FeedbackExamples,
    store: FeedbackStore,
    talk: Conversations,
    database: Database,
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
    assert answers(own) == [e.answer for e in examples.used("ann", answer)] == ["40 m.", "30 m."]
    examples.remove("ann", old)
    forget_before(database, moment)
    assert answers(own) == [e.answer for e in examples.used("ann", answer)] == ["40 m."]
    forget_user(database, "ann")
    assert (own.of("ann"), examples.removed("ann")) == ((), frozenset())


def test_similar_ones_are_found_the_most_similar_last_and_the_newest_of_equals(
    own: OwnExamples, examples: FeedbackExamples, store: FeedbackStore, talk: Conversations
) -> None:
    for number, (question, text) in enumerate(
        [(OAK, "old"), (ELM, "40 m."), (BREAD, "Flour."), (OAK, "new"), ("An oak, how tall?", "!")]
    ):
        store.correct(talk.ask(question, conversation=str(number)), "ann", text)
    # "tall", "oak" and "tree" are in three, two and two of 105 documents (100 of them padding)
    assert [e.answer for e in examples.similar("ann", OAK)] == ["40 m.", "!", "new"]
    assert [e.answer for e in examples.similar("ann", OAK, most=1)] == ["new"]
    assert [e.answer for e in examples.similar("ann", "A bread recipe?")] == ["Flour."]
    assert examples.similar("ann", "Who painted the Mona Lisa?") == ()


def test_only_a_liked_answer_brings_its_thought(
    own: OwnExamples, examples: FeedbackExamples, store: FeedbackStore, talk: Conversations
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
    assert [e.answer for e in examples.similar("ann", ELM, with_thought=True)] == ["30 m."]


def test_what_was_used_may_be_shown_again_unless_it_was_removed_or_replaced(
    own: OwnExamples, examples: FeedbackExamples, store: FeedbackStore, talk: Conversations
) -> None:
    oak, elm = talk.ask(OAK), talk.ask(ELM)
    store.correct(oak, "ann", "30 m.")
    store.correct(elm, "ann", "40 m.")
    used = [example.reference for example in own.of("ann")]
    turn = store.add_turn(
        user_id="ann", question=OAK, template=PLAIN, conversation_id="c1", example_ids=used
    )
    answer = talk.finish(talk.begin(turn.id), "32 m.")
    assert examples.still_used("ann", answer) == examples.used("ann", answer) == own.of("ann")
    examples.remove("ann", elm)
    assert [e.answer for e in examples.still_used("ann", answer)] == ["30 m."]
    store.correct(oak, "ann", "31 m.")
    assert examples.still_used("ann", answer) == ()
    assert [e.answer for e in examples.used("ann", answer)] == ["40 m.", "30 m."]


# Shared with everybody


@pytest.fixture
def oak(store: FeedbackStore, talk: Conversations, shared: SharedExamples) -> str:
    """Ann's corrected answer, which the operator approved."""
    answer_id = talk.ask(OAK, conversation="ann")
    store.correct(answer_id, "ann", "30 m.")
    shared.approve(answer_id)
    return answer_id


def seen(examples: tuple[FeedbackExample, ...]) -> list[tuple[str, bool]]:
    return [(example.answer, example.is_shared) for example in examples]


def test_a_shared_example_is_shown_to_others_and_their_own_come_first(
    oak: str, examples: FeedbackExamples, store: FeedbackStore, talk: Conversations
) -> None:
    assert seen(examples.similar("bob", ELM)) == [("30 m.", True)]
    assert seen(examples.similar("ann", ELM)) == [("30 m.", False)]
    assert examples.similar("bob", BREAD) == ()
    elm = talk.ask(ELM, user="bob", conversation="bob")
    store.correct(elm, "bob", "40 m.")
    # Next to the question stands the person's own, although Ann's asks the very same
    assert seen(examples.similar("bob", OAK)) == [("30 m.", True), ("40 m.", False)]
    assert seen(examples.similar("bob", OAK, most=1)) == [("40 m.", False)]
    own_oak = talk.ask(OAK, user="bob", conversation="bob")
    store.correct(own_oak, "bob", "31 m.")
    assert seen(examples.similar("bob", OAK)) == [("40 m.", False), ("31 m.", False)]


def test_who_receives_a_shared_example_need_not_consent_nor_have_own_ones(
    oak: str, database: Database, examples: FeedbackExamples, shared: SharedExamples
) -> None:
    Curation(database).set_consent("bob", False)
    assert seen(examples.similar("bob", ELM)) == [("30 m.", True)]
    without_own = FeedbackExamples(database, None, shared)
    for person in ("ann", "bob"):
        assert seen(without_own.similar(person, ELM)) == [("30 m.", True)]


def test_who_removes_a_shared_example_is_not_shown_it_again_and_others_are(
    oak: str, examples: FeedbackExamples, shared: SharedExamples
) -> None:
    examples.remove("bob", oak)
    assert examples.similar("bob", ELM) == ()
    assert seen(examples.similar("eve", ELM)) == [("30 m.", True)]
    examples.restore("bob", oak)
    assert seen(examples.similar("bob", ELM)) == [("30 m.", True)]
    shared.withdraw(oak)
    with pytest.raises(UnknownId):
        examples.remove("bob", oak)


def answered_with(oak: str, store: FeedbackStore, talk: Conversations, reference: str) -> str:
    """An answer of Bob's that was made with an example in view."""
    turn = store.add_turn(
        user_id="bob", question=ELM, template=PLAIN, conversation_id="bob", example_ids=[reference]
    )
    return talk.finish(talk.begin(turn.id), "40 m.")


def test_a_shared_example_that_was_used_is_known_while_it_is_shared(
    oak: str,
    examples: FeedbackExamples,
    shared: SharedExamples,
    store: FeedbackStore,
    talk: Conversations,
) -> None:
    (example,) = examples.similar("bob", ELM)
    answer = answered_with(oak, store, talk, example.reference)
    assert examples.used("bob", answer) == examples.still_used("bob", answer) == (example,)
    examples.remove("bob", oak)
    assert examples.used("bob", answer) == (example,)  # to be restored
    assert examples.still_used("bob", answer) == ()
    examples.restore("bob", oak)
    shared.withdraw(oak)
    assert examples.used("bob", answer) == examples.still_used("bob", answer) == ()


def test_whose_author_is_forgotten_it_is_gone_from_everybodys_answers(
    oak: str,
    examples: FeedbackExamples,
    store: FeedbackStore,
    talk: Conversations,
    database: Database,
) -> None:
    (example,) = examples.similar("bob", ELM)
    answer = answered_with(oak, store, talk, example.reference)
    examples.remove("bob", oak)
    forget_user(database, "ann")
    assert examples.used("bob", answer) == examples.similar("eve", ELM) == ()
    assert examples.removed("bob") == frozenset()
