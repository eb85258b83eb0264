"""Queries of the training set: pages, searches, and the weights of votes."""

from __future__ import annotations

import pytest

from engine.errors import UnknownId
from feedback_store.curation.decisions import Curation
from feedback_store.examples.types import SetAside
from feedback_store.storage.store import FeedbackStore
from feedback_store.storage.wanted import Wanted
from feedback_store.view.training_set import TrainingSet
from tests.feedback_store.conftest import PLAIN, Conversations
from tests.feedback_store.helpers import examples_now, judged


def test_rows_come_page_by_page_in_the_order_people_spoke(
    store: FeedbackStore, talk: Conversations, training_set: TrainingSet
) -> None:
    for n in range(5):
        store.vote(talk.ask(f"Question {n}?", conversation=f"c{9 - n}"), "ann", 1)
    training_set.refresh()
    rows, total = training_set.page("demonstrations", first=1, count=2)
    shown = [row.prompt[-1].content for row in rows if not isinstance(row, SetAside)]
    assert shown == ["Question 1?", "Question 2?"]
    assert total == 5
    assert training_set.page("demonstrations", "vote", first=4)[1] == 5
    assert training_set.page("demonstrations", "correction") == ([], 0)


def test_a_search_finds_words_in_questions_answers_and_corrections(
    store: FeedbackStore, talk: Conversations, training_set: TrainingSet
) -> None:
    store.correct(talk.ask("Where is the SEA?", "Far off.", conversation="c1"), "ann", "Near by.")
    store.vote(talk.ask("Who?", "A 100% sailor.", conversation="c2"), "ann", -1)
    store.vote(talk.ask("\u8c01?", "\u6211.", conversation="c3"), "ann", -1)
    store.note(talk.ask("Bad?", "A curse.", conversation="c4"), "ann", "flag")
    training_set.refresh()

    def found(place: str, words: str) -> int:
        rows, total = training_set.page(place, search=Wanted(words.strip().casefold()))
        assert len(rows) == total
        return total

    assert [found("pairs", words) for words in ("the sea", "FAR", " near ", "sailor")] == [
        1,
        1,
        1,
        0,
    ]
    assert [found("unpaired", w) for w in ("100%", "\u6211", "1_0%", "sea")] == [1, 1, 0, 0]
    assert (found("set_aside", "sailor"), found("demonstrations", "near by")) == (0, 1)


def test_a_search_finds_people_comments_and_reasons(
    store: FeedbackStore, talk: Conversations, training_set: TrainingSet
) -> None:
    said = talk.ask("Who?", "A sailor.", conversation="c1", user="judge-7")
    store.vote(said, "judge-7", -1, reasons=["too_long"], comment="Nobody asked for IRONY")
    store.correct(talk.ask("Where?", "Far.", conversation="c2"), "ann", "Near.")
    left = talk.ask("What?", "A sea.", conversation="c3")
    right = talk.again(left, "A lake.")
    store.choose(store.compare(left, right, "ann").id, "ann", "left")
    training_set.refresh()

    def found(place: str, wanted: Wanted) -> int:
        return training_set.page(place, search=wanted)[1]

    assert found("unpaired", Wanted("irony")) == 1
    assert found("unpaired", Wanted("judge-7")) == 1
    assert found("unpaired", Wanted("no such name", users=frozenset(["judge-7"]))) == 1
    assert found("unpaired", Wanted("too long", reasons=frozenset(["too_long"]))) == 1
    assert found("unpaired", Wanted("too short", reasons=frozenset(["too_short"]))) == 0
    assert (found("pairs", Wanted("irony")), found("pairs", Wanted("ann"))) == (0, 2)


def test_an_example_is_found_by_the_beginning_of_its_id(
    store: FeedbackStore, talk: Conversations, training_set: TrainingSet
) -> None:
    store.correct(talk.ask(text="A lef."), "ann", "A leaf.")
    (pair,) = examples_now(training_set).pairs
    assert training_set.find(pair.id[:20]) == pair
    for beginning in ("sha256:", "sha256:" + "z" * 64, "%"):  # several begin so; none does
        with pytest.raises(UnknownId, match="no one example's id begins"):
            training_set.find(beginning)


# Trust


def test_votes_of_several_people_are_weighed(
    store: FeedbackStore, training_set: TrainingSet
) -> None:
    """Three of whom little is known outvote one (16 to 1 is over 0.9); two against one do not."""
    store.add_imported(
        [
            judged([("a", "+"), ("b", "+"), ("c", "+"), ("d", "-")], "Three to one."),
            judged([("a", "+"), ("b", "+"), ("e", "-")], "Two to one."),
        ],
        PLAIN,
        "importer",
    )
    examples = examples_now(training_set, reestimate=True)
    assert [e.completion.text for e in examples.unpaired] == ["Three to one."]
    assert len(examples.unpaired[0].origin.user_ids) == 3
    assert examples.set_aside_counts == {"contested": 1, "outvoted": 1}


def test_a_flipped_vote_changes_the_verdict_that_others_share(
    store: FeedbackStore, training_set: TrainingSet
) -> None:
    """The number of votes stays the same; what they say does not."""
    turn = judged([("a", "+"), ("b", "+"), ("importer", "+"), ("d", "-")])
    store.add_imported([turn], PLAIN, "importer")
    assert [e.label for e in examples_now(training_set, reestimate=True).unpaired] == [True]
    (liked,) = examples_now(training_set).demonstrations
    store.vote(liked.completion.answer_id, "importer", -1)
    assert examples_now(training_set, reestimate=True).set_aside_counts == {"contested": 1}


def test_who_does_not_consent_does_not_tip_the_scales(
    store: FeedbackStore, training_set: TrainingSet, curation: Curation
) -> None:
    store.add_imported(
        [judged([("a", "+"), ("b", "+"), ("c", "+"), ("d", "-")])], PLAIN, "importer"
    )
    assert len(examples_now(training_set, reestimate=True).unpaired) == 1
    for user in ("b", "c"):
        curation.set_consent(user, False)
    examples = examples_now(training_set, reestimate=True)
    assert examples.unpaired == []
    assert examples.set_aside_counts == {"contested": 1, "no consent": 2}
