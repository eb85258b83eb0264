"""What people say now of what they were shown, read back whole, in batches, from one moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest

from engine.messages import Message
from engine.prompts.examples import Example
from engine.prompts.modes import make_template
from feedback_store.records import ImportedAnswer, ImportedTurn, ImportedVote, PromptEvidence
from feedback_store.storage import evidence as evidence_module
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import PLAIN, Conversations


@pytest.fixture
def reader(database: Database, store: FeedbackStore) -> EvidenceReader:
    return EvidenceReader(database)


def only(reader: EvidenceReader) -> PromptEvidence:
    (evidence,) = reader.all()
    return evidence


def contents(messages: Sequence[Message]) -> list[str]:
    return [message.content for message in messages]


# What is evidence


def test_only_prompts_that_somebody_judged_are_evidence(
    store: FeedbackStore, talk: Conversations, reader: EvidenceReader
) -> None:
    talk.ask("nobody cared")
    copied = talk.ask("somebody did not judge", conversation="c2")
    store.note(copied, "ann", "copy")
    store.note(copied, "ann", "regeneration")
    voted = talk.ask("somebody did")
    talk.again(voted, "a sibling without a vote")
    store.vote(voted, "ann", 1)
    evidence = only(reader)
    assert evidence.prompt[-1] == Message("user", "somebody did")
    assert [a.text for a in evidence.answers] == ["A leaf.", "a sibling without a vote"]
    assert (evidence.conversation_id, evidence.user_id) == ("c1", "ann")
    assert (evidence.template_hash, evidence.mode) == (PLAIN.hash, "plain")


def test_everything_that_was_said_is_there_with_its_event_in_the_order_it_came(
    store: FeedbackStore, talk: Conversations, reader: EvidenceReader
) -> None:
    one = talk.ask(text="A")
    other = talk.again(one, "B")
    comparison = store.compare(one, other, "ann")
    store.vote(other, "ann", -1, reasons=["too_long", "bad_style"], comment="Long.")  # event 1
    store.choose(comparison.id, "ann", "left")  # 2
    store.correct(other, "ann", "C")  # 3
    store.note(one, "ann", "flag")  # 4
    store.vote(one, "ann", 1)  # 5
    evidence = only(reader)
    assert [
        (v.event_id, v.answer_id, v.user_id, v.vote, v.reasons, v.comment) for v in evidence.votes
    ] == [(1, other, "ann", -1, ("bad_style", "too_long"), "Long."), (5, one, "ann", 1, (), "")]
    assert [
        (c.event_id, c.left_answer_id, c.right_answer_id, c.user_id, c.choice)
        for c in evidence.choices
    ] == [(2, one, other, "ann", "left")]
    assert [(c.event_id, c.answer_id, c.user_id, c.text) for c in evidence.corrections] == [
        (3, other, "ann", "C")
    ]
    assert evidence.flagged == {one}
    times = [evidence.votes[0].at, evidence.choices[0].at, evidence.corrections[0].at]
    assert times == sorted(times) and times[0] > comparison.created_at


def test_a_vote_that_was_taken_back_leaves_its_prompt_without_votes(
    store: FeedbackStore, talk: Conversations, reader: EvidenceReader
) -> None:
    answer_id = talk.ask()
    store.vote(answer_id, "ann", 1)
    store.vote(answer_id, "ann", 0)
    assert only(reader).votes == ()


def test_each_users_last_word_counts_for_that_user_alone(
    store: FeedbackStore, reader: EvidenceReader
) -> None:
    votes = (ImportedVote("ann", 1), ImportedVote("bob", -1))
    store.add_imported(
        [ImportedTurn((Message("user", "Q"),), (ImportedAnswer("A", votes=votes),))], PLAIN, "ann"
    )
    (answer,) = only(reader).answers
    store.vote(answer.id, "ann", -1)
    assert sorted((v.user_id, v.vote) for v in only(reader).votes) == [("ann", -1), ("bob", -1)]


# Prompts


def test_a_prompt_has_its_history_of_the_branch_that_was_shown(
    store: FeedbackStore, talk: Conversations, reader: EvidenceReader
) -> None:
    template = make_template("few-shot", (Example("2+2?", "4", "two and two"),), "Be brief.")
    first = talk.ask("Q1", "A1", template=template)
    again = talk.again(first, "A1 again")
    second = talk.ask("Q2", "A2", parent=again, template=template)
    third = talk.ask("Q3", "A3", parent=second, template=template)
    store.vote(third, "ann", 1)
    evidence = only(reader)
    assert evidence.prompt == store.shown_prompt(third, "ann")[1]
    assert contents(evidence.prompt)[3:] == ["Q1", "A1 again", "Q2", "A2", "Q3"]


def test_a_prompt_that_was_given_is_taken_as_it_was(
    store: FeedbackStore, talk: Conversations, reader: EvidenceReader
) -> None:
    given = (Message("system", "Trimmed."), Message("user", "Q9"))
    turn = store.add_turn(
        user_id="ann", question="Q9", template=PLAIN, conversation_id="c1", prompt=given
    )
    store.vote(talk.finish(talk.begin(turn.id), "A"), "ann", 1)
    assert only(reader).prompt == given


def test_the_same_question_asked_again_from_the_start_is_the_same_prompt(
    store: FeedbackStore, talk: Conversations, reader: EvidenceReader
) -> None:
    """Two tabs of one conversation: their answers are siblings; elsewhere they are not."""
    one, other = talk.ask("Q", "A"), talk.ask("Q", "B")
    elsewhere = talk.ask("Q", "C", conversation="c2")
    votes: list[tuple[str, Literal[-1, 1]]] = [(one, 1), (other, -1), (elsewhere, 1)]
    for answer_id, vote in votes:
        store.vote(answer_id, "ann", vote)
    assert sorted([a.text for a in e.answers] for e in reader.all()) == [["A", "B"], ["C"]]


def test_the_same_question_with_another_template_is_another_prompt(
    store: FeedbackStore, talk: Conversations, reader: EvidenceReader
) -> None:
    for template in (PLAIN, make_template("cot", ())):
        store.vote(talk.ask("Q", template=template), "ann", 1)
    assert [e.mode for e in reader.all()] == ["plain", "cot"]


# Parts of it


def test_given_conversations_are_read_and_no_other(
    store: FeedbackStore, talk: Conversations, reader: EvidenceReader
) -> None:
    for name in ("c1", "c2", "c3"):
        store.vote(talk.ask(conversation=name), "ann", 1)
    assert [e.conversation_id for e in reader.of({"c3", "c1", "unknown"})] == ["c1", "c3"]
    assert list(reader.of([])) == []


def test_what_was_judged_since_an_event_is_found_by_conversation(
    store: FeedbackStore, talk: Conversations, reader: EvidenceReader
) -> None:
    assert reader.judged_since(0) == set()
    first = talk.ask(conversation="c1")
    store.vote(first, "ann", 1)
    assert reader.judged_since(0) == {"c1"}
    left = talk.ask(conversation="c2")
    store.choose(store.compare(left, talk.again(left, "B"), "ann").id, "ann", "tie")
    store.note(talk.ask(conversation="c3"), "ann", "copy")  # no judgement, yet an event
    assert reader.judged_since(1) == {"c2"}
    assert reader.judged_since(3) == set()


def test_the_conversations_of_some_users_are_those_they_asked_or_judged_in(
    store: FeedbackStore, talk: Conversations, reader: EvidenceReader
) -> None:
    talk.ask(user="ann", conversation="asked")
    talk.ask(user="bob", conversation="bob's")
    votes = (ImportedVote("ann", 1),)
    store.add_imported(
        [ImportedTurn((Message("user", "Q"),), (ImportedAnswer("A", votes=votes),))], PLAIN, "eve"
    )
    (imported,) = {e.conversation_id for e in reader.all()}
    assert reader.conversations_of(["ann"]) == {"asked", imported}
    assert reader.conversations_of(["bob", "eve"]) == {"bob's", imported}
    assert reader.conversations_of([]) == set()


@pytest.mark.integration
def test_the_conversations_of_a_town_can_be_asked_for(
    talk: Conversations, reader: EvidenceReader
) -> None:
    talk.ask(user="user-69999", conversation="theirs")
    everybody = [f"user-{number}" for number in range(70_000)]
    assert reader.conversations_of(everybody) == {"theirs"}


def test_shared_votes_are_current_thumbs_on_answers_that_several_judged(
    store: FeedbackStore, reader: EvidenceReader
) -> None:
    def judged(text: str, *votes: tuple[str, Literal[-1, 1]]) -> ImportedTurn:
        said = tuple(ImportedVote(user, vote) for user, vote in votes)
        return ImportedTurn((Message("user", text),), (ImportedAnswer("A", votes=said),))

    turns = [judged("Q1", ("ann", 1), ("bob", -1)), judged("Q2", ("ann", 1))]
    store.add_imported(turns, PLAIN, "ann")
    shared = reader.shared_votes()
    assert sorted((vote.user_id, vote.vote) for _, vote in shared) == [("ann", 1), ("bob", -1)]
    store.vote(shared[0][1].answer_id, "ann", 0)
    assert [(vote.user_id, vote.vote) for _, vote in reader.shared_votes()] == [("bob", -1)]


# Whole, whatever its size and whoever writes meanwhile


def test_batches_lose_and_repeat_nothing(
    store: FeedbackStore,
    talk: Conversations,
    reader: EvidenceReader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [f"c{number}" for number in range(7)]
    for name in names:
        store.vote(talk.ask(conversation=name), "ann", 1)
    whole = list(reader.all())
    assert [e.conversation_id for e in whole] == names
    for size in (1, 3, 7):
        monkeypatch.setattr(evidence_module, "CONVERSATIONS_AT_ONCE", size)
        assert list(reader.all()) == whole


def test_a_reader_sees_one_moment_while_others_write(
    store: FeedbackStore,
    talk: Conversations,
    reader: EvidenceReader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A turn that appears between two of the reader's queries would have answers without turn."""
    answers = [talk.ask(conversation=name) for name in ("c1", "c2")]
    for answer_id in answers:
        store.vote(answer_id, "ann", 1)
    monkeypatch.setattr(evidence_module, "CONVERSATIONS_AT_ONCE", 1)
    seen = []
    for evidence in reader.all():
        seen.append((evidence.conversation_id, len(evidence.answers), evidence.votes[0].vote))
        for answer_id in answers:
            store.vote(answer_id, "ann", -1)
            talk.again(answer_id, "Meanwhile.")
    assert seen == [("c1", 1, 1), ("c2", 1, 1)]
    assert [len(e.answers) for e in reader.all()] == [3, 3]
