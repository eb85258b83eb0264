"""What the operator and the people decide about training data is kept, and the latest counts."""

from __future__ import annotations

import pytest

from engine.errors import Conflict, InvalidInput, InvalidText, UnknownId
from feedback_store.curation.decisions import Curation
from feedback_store.examples.pairing import build_prompt_examples
from feedback_store.examples.types import TrainingExample
from feedback_store.records import ExampleDecision
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import Conversations
from tests.feedback_store.helpers import reply, said, voted_pair

PAIR = voted_pair("c0")
(LONE,) = build_prompt_examples(said(reply("a", "A."), votes=[(1, "a", "ann", -1)])).unpaired


def decision(
    curation: Curation, example: TrainingExample = PAIR
) -> tuple[str, str | None, str | None]:
    """Action and words of the latest decision."""
    found = curation.decisions()[example.id]
    return found.action, found.chosen, found.rejected


# Decisions


def test_an_exclusion_is_kept_with_its_reason_and_time(curation: Curation) -> None:
    curation.exclude(PAIR, "a joke")
    (found,) = curation.decisions().values()
    assert found == ExampleDecision(PAIR.id, "exclude", None, None, "a joke", found.at)
    assert found.at > 0


def test_the_latest_decision_about_an_example_counts(curation: Curation) -> None:
    curation.exclude(PAIR)
    curation.edit(PAIR, chosen="Better.")
    assert decision(curation) == ("edit", "Better.", None)
    curation.edit(PAIR, rejected="Worse.")
    assert decision(curation) == ("edit", None, "Worse.")
    curation.take_back(PAIR.id)
    assert decision(curation) == ("include", None, None)


def test_decisions_about_different_examples_stand_side_by_side(curation: Curation) -> None:
    curation.exclude(PAIR)
    curation.edit(LONE, chosen="B.")
    assert {each.example_id: each.action for each in curation.decisions().values()} == {
        PAIR.id: "exclude",
        LONE.id: "edit",
    }


def test_what_was_never_decided_cannot_be_taken_back(curation: Curation) -> None:
    with pytest.raises(UnknownId, match="nothing was decided"):
        curation.take_back(PAIR.id)


def test_an_edit_needs_words(curation: Curation) -> None:
    with pytest.raises(InvalidInput, match="needs new words"):
        curation.edit(PAIR)
    with pytest.raises(InvalidText, match="the edit is empty"):
        curation.edit(PAIR, chosen=" \n")
    assert curation.decisions() == {}


def test_only_a_pair_has_a_rejected_side_to_edit(curation: Curation) -> None:
    with pytest.raises(InvalidInput, match="only a pair"):
        curation.edit(LONE, rejected="B.")


@pytest.mark.parametrize("note", ["x" * 4_001, "\x00"])
def test_a_note_that_cannot_be_kept_is_refused(curation: Curation, note: str) -> None:
    with pytest.raises(InvalidText, match="note"):
        curation.exclude(PAIR, note)
    assert curation.decisions() == {}


# Gold (c23 is held out and c0 is not: see `test_snapshot.SIDES`)


def test_a_held_out_conversation_can_be_gold_until_it_is_put_back(
    curation: Curation, talk: Conversations
) -> None:
    talk.ask(conversation="c23")
    curation.mark_gold("c23")
    curation.mark_gold("c23")
    assert curation.gold() == {"c23"}
    curation.unmark_gold("c23")
    assert curation.gold() == frozenset()


def test_a_conversation_on_the_training_side_proves_nothing_and_cannot_be_gold(
    curation: Curation, talk: Conversations
) -> None:
    talk.ask(conversation="c0")
    with pytest.raises(Conflict, match="training side"):
        curation.mark_gold("c0")
    assert curation.gold() == frozenset()


def test_an_unknown_conversation_cannot_be_gold(curation: Curation) -> None:
    with pytest.raises(UnknownId):
        curation.mark_gold("c23")


# Consent


def test_where_people_may_opt_out_only_those_who_did_refuse(
    curation: Curation, talk: Conversations
) -> None:
    talk.ask(user="ann")
    assert (curation.consents("ann"), curation.refusing()) == (True, frozenset())
    curation.set_consent("ann", False)
    assert (curation.consents("ann"), curation.refusing()) == (False, frozenset({"ann"}))
    curation.set_consent("ann", True)
    assert (curation.consents("ann"), curation.refusing()) == (True, frozenset())


def test_where_people_must_opt_in_everybody_else_refuses(
    database: Database, store: FeedbackStore, talk: Conversations
) -> None:
    curation = Curation(database, consent_by_default=False)
    talk.ask(user="ann")
    talk.ask(user="bob", conversation="c2")
    assert (curation.consents("ann"), curation.refusing()) == (False, frozenset({"ann", "bob"}))
    curation.set_consent("ann", True)
    assert (curation.consents("ann"), curation.refusing()) == (True, frozenset({"bob"}))
