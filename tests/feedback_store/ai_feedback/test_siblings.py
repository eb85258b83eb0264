"""Which answers an AI judge may compare: those that nobody said anything of."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.messages import Message
from feedback_store.ai_feedback.siblings import Siblings, unjudged_siblings
from feedback_store.examples.rules import TOO_LONG, Rules
from feedback_store.examples.split import SplitName, split_of
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.feedback_store.conftest import Conversations
from tests.feedback_store.helpers import examples_now


def conversation_on(side: SplitName) -> str:
    return next(name for i in range(100) if split_of(name := f"c{i}") == side)


TRAIN = conversation_on("train")
Find = Callable[..., list[Siblings]]


@pytest.fixture
def find(database: Database, store: FeedbackStore) -> Find:
    return lambda *args, **kwargs: list(unjudged_siblings(database, store, *args, **kwargs))


def texts(siblings: Siblings) -> list[str]:
    return [side.text for side in siblings.answers]


def two_answers(talk: Conversations, conversation: str = TRAIN) -> tuple[str, str]:
    first = talk.ask("What is a leaf?", "A leaf.", conversation=conversation)
    return first, talk.again(first, "Part of a plant.")


def test_regenerated_answers_that_nobody_judged_are_found_with_their_prompt(
    talk: Conversations, find: Find, store: FeedbackStore
) -> None:
    first, second = two_answers(talk)
    store.note(first, "ann", "regeneration")
    store.note(second, "ann", "copy")
    (found,) = find()
    assert texts(found) == ["A leaf.", "Part of a plant."]
    assert [side.answer_id for side in found.answers] == [first, second]
    assert (found.conversation_id, found.user_id) == (TRAIN, "ann")
    assert found.prompt == store.shown_prompt(first, "ann")[1]
    assert found.prompt[-1] == Message("user", "What is a leaf?")


def test_a_later_turn_keeps_its_history(talk: Conversations, find: Find) -> None:
    start = talk.ask("What is a tree?", "A big plant.", conversation=TRAIN)
    first = talk.ask("And a leaf?", "Green.", conversation=TRAIN, parent=start)
    talk.again(first, "Flat.")
    (found,) = find()
    assert [m.content for m in found.prompt[-3:]] == [
        "What is a tree?",
        "A big plant.",
        "And a leaf?",
    ]


@pytest.mark.parametrize("said", ["vote", "correction", "flag", "choice"])
def test_a_persons_word_about_either_answer_counts_more_than_a_judges(
    talk: Conversations, find: Find, store: FeedbackStore, said: str
) -> None:
    first, second = two_answers(talk)
    assert len(find()) == 1
    if said == "vote":
        store.vote(second, "ann", -1)
    elif said == "correction":
        store.correct(first, "ann", "A leaf is part of a plant.")
    elif said == "flag":
        store.note(first, "ann", "flag")
    else:
        store.choose(store.compare(first, second, "ann").id, "ann", "tie")
    assert find() == []


def test_a_vote_that_was_taken_back_is_no_word(
    talk: Conversations, find: Find, store: FeedbackStore
) -> None:
    first, _ = two_answers(talk)
    store.vote(first, "ann", 1)
    store.vote(first, "ann", 0)
    assert len(find()) == 1


def test_a_comparison_that_nobody_decided_is_no_word(
    talk: Conversations, find: Find, store: FeedbackStore
) -> None:
    store.compare(*two_answers(talk), "ann")
    assert len(find()) == 1


def test_held_out_conversations_are_not_trained_on_by_this_way_either(
    talk: Conversations, find: Find
) -> None:
    two_answers(talk, conversation_on("heldout"))
    assert find() == []


def test_who_refuses_is_left_out(talk: Conversations, find: Find) -> None:
    two_answers(talk)
    assert find(Rules(refusing_users=frozenset({"ann"}))) == []
    assert len(find(Rules(refusing_users=frozenset({"bob"})))) == 1


def test_answers_that_say_nothing_or_too_much_are_no_siblings(
    talk: Conversations, find: Find, store: FeedbackStore
) -> None:
    first = talk.ask("What is a leaf?", "A leaf.", conversation=TRAIN)
    talk.again(first, " \n")
    talk.again(first, "a" * 21)
    talk.finish(talk.begin(store.turn_of(first, "ann").id), "Broken", status="failed")
    assert find(Rules(max_answer_chars=20)) == []
    talk.again(first, "Green.")
    (found,) = find(Rules(max_answer_chars=20))
    assert texts(found) == ["A leaf.", "Green."]


def test_a_judge_labels_no_answer_that_the_rules_find_too_long_with_its_thought(
    talk: Conversations, find: Find, store: FeedbackStore, training_set: TrainingSet
) -> None:
    """Else it would label what no snapshot takes."""
    first = talk.ask("What is a leaf?", "A leaf.", conversation=TRAIN)
    long = talk.begin(store.turn_of(first, "ann").id)
    store.finish_answer(long, status="done", text="Green.", thought="x" * 8_000, complete=True)
    assert find() == []
    store.correct(long, "ann", "Green!")
    assert examples_now(training_set).set_aside_counts == {TOO_LONG: 1}


@pytest.mark.integration
def test_only_neighbours_that_read_differently_are_compared(
    talk: Conversations, find: Find
) -> None:
    first = talk.ask("What is a leaf?", "A leaf.", conversation=TRAIN)
    talk.again(first, "a  LEAF.")
    assert find() == []
    talk.again(first, "Green.")
    (found,) = find()
    assert [(a.text, b.text) for a, b in found.couples()] == [("a  LEAF.", "Green.")]


def test_every_text_is_redacted_before_a_judge_sees_it(talk: Conversations, find: Find) -> None:
    first = talk.ask("Who is Ann?", "Ann is Ann.", conversation=TRAIN)
    talk.again(first, "A friend of Ann.")
    (found,) = find(redact=lambda text: text.replace("Ann", "[NAME]"))
    assert found.prompt[-1].content == "Who is [NAME]?"
    assert texts(found) == ["[NAME] is [NAME].", "A friend of [NAME]."]
