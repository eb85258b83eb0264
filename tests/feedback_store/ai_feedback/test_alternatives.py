"""Alternatives of bad answers, and the comparisons of them that wait for people."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import select

from engine.errors import Conflict, InvalidInput, UnknownId
from feedback_store.ai_feedback.alternatives import (
    FEW_WORDS,
    Alternative,
    Alternatives,
    BadAnswer,
    ChosenCouple,
)
from feedback_store.ai_feedback.comparison_queue import ComparisonQueue
from feedback_store.ai_feedback.siblings import unjudged_siblings
from feedback_store.conversations.conversation_list import Conversations as ConversationList
from feedback_store.curation.decisions import Curation
from feedback_store.examples.split import split_of
from feedback_store.personal.personal_data import personal_data
from feedback_store.privacy.erasure import forget_conversations, forget_user
from feedback_store.records import OPERATOR
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.feedback_store.conftest import Conversations

TRAIN = next(name for name in map(str, range(100)) if split_of(name) == "train")


@pytest.fixture
def alternatives(database: Database, curation: Curation) -> Alternatives:
    return Alternatives(database, curation.refusing)


@pytest.fixture
def queue(database: Database, store: FeedbackStore, curation: Curation) -> ComparisonQueue:
    return ComparisonQueue(database, store, curation.refusing)


def write(
    alternatives: Alternatives,
    bad: BadAnswer,
    texts: Sequence[str] = ("One.", "Two.", "Three."),
    *,
    preference: float = 0.5,
    logprob: float = -1.0,
    adapter: str | None = None,
) -> None:
    """Alternatives of which the first two wait to be compared."""
    made = [Alternative(text, "", True, i, logprob, 5, 2) for i, text in enumerate(texts)]
    alternatives.store(
        bad,
        made,
        ChosenCouple(0, 1, preference),
        base_digest="sha256:base",
        adapter_digest=adapter,
        sampling={"temperature": 0.7},
    )


def disliked(
    talk: Conversations, store: FeedbackStore, conversation: str = "c1", user: str = "ann"
) -> str:
    answer_id = talk.ask(f"Q of {conversation}", "Bad.", conversation=conversation, user=user)
    store.vote(answer_id, user, -1)
    return answer_id


# What wants alternatives


def test_a_thumb_down_or_few_words_of_correction_want_alternatives(
    alternatives: Alternatives, talk: Conversations, store: FeedbackStore
) -> None:
    words = [f"word{number}" for number in range(FEW_WORDS + 1)]
    liked, silent = talk.ask(conversation="liked"), talk.ask(conversation="silent")
    store.vote(liked, "ann", 1)
    cleared = disliked(talk, store, "cleared")
    store.vote(cleared, "ann", 0)
    rewritten = disliked(talk, store, "rewritten")
    store.correct(rewritten, "ann", " ".join(words))
    down = disliked(talk, store, "down")
    hint = talk.ask(conversation="hint")
    store.correct(hint, "ann", " ".join(words[:-1]))
    reported = disliked(talk, store, "reported")
    store.note(reported, "ann", "flag")
    assert [each.id for each in alternatives.wanted(10)] == [hint, down]  # judged last first
    assert silent not in {each.id for each in alternatives.wanted(10)}
    assert len(alternatives.wanted(1)) == 1


def test_who_refuses_deletes_or_has_alternatives_gets_none(
    alternatives: Alternatives,
    talk: Conversations,
    store: FeedbackStore,
    database: Database,
    curation: Curation,
) -> None:
    disliked(talk, store, "c1", "ann")
    disliked(talk, store, "c2", "bob")
    third = disliked(talk, store, "c3", "cy")
    ConversationList(database).delete("c1", "ann")
    curation.set_consent("bob", False)
    (wanted,) = alternatives.wanted(10)
    assert wanted == BadAnswer(third, store.turn_of(third, "cy").id, "cy", "plain", None)
    write(alternatives, wanted)
    assert alternatives.wanted(10) == []
    again = talk.again(third, "Bad, too.", user="cy")
    store.vote(again, "cy", -1)
    assert alternatives.wanted(10) == []  # nor another answer to the same question


# Where they are, and go


def test_alternatives_are_no_part_of_the_chat_until_their_person_has_compared_them(
    alternatives: Alternatives,
    queue: ComparisonQueue,
    talk: Conversations,
    store: FeedbackStore,
    database: Database,
) -> None:
    bad = disliked(talk, store)
    write(alternatives, alternatives.wanted(1)[0])
    listed = ConversationList(database)
    (turn,) = listed.view("c1", "ann").turns
    assert turn.answers == (bad,)
    assert listed.search("ann", "Two") == []
    (waiting,) = queue.waiting(5)
    queue.choose(waiting.id, "ann", "right", asked_by="ann")
    (turn,) = listed.view("c1", "ann").turns
    assert set(turn.answers) == {bad, waiting.first.id, waiting.second.id}
    assert waiting.second.sampling["alternative_to"] == bad
    written = str(personal_data(database, "ann"))
    assert "Three." in written  # the copy of all their data has what waits, too


def test_a_second_answer_that_was_not_offered_is_not_shown_and_takes_nothing_from_the_first(
    alternatives: Alternatives, talk: Conversations, store: FeedbackStore, database: Database
) -> None:
    first = disliked(talk, store, TRAIN)
    second = talk.again(first, "Another.")
    alternatives.hide(second, "ann")
    (turn,) = ConversationList(database).view(TRAIN, "ann").turns
    assert turn.answers == (first,)
    assert alternatives.count() == 0
    assert [each.id for each in alternatives.wanted(10)] == [first]
    with pytest.raises(UnknownId):
        alternatives.hide(second, "bob")


def test_alternatives_go_with_their_conversation_and_their_person(
    alternatives: Alternatives,
    queue: ComparisonQueue,
    talk: Conversations,
    store: FeedbackStore,
    database: Database,
) -> None:
    for name, user in (("c1", "ann"), ("c2", "ann"), ("c3", "bob")):
        disliked(talk, store, name, user)
        write(alternatives, alternatives.wanted(1)[0])
    for waiting in queue.waiting(5)[:1]:
        queue.choose(waiting.id, OPERATOR, "left")
    forget_conversations(database, ["c1"])
    assert {each.conversation_id for each in queue.waiting(5)} <= {"c2", "c3"}
    forget_user(database, "ann")
    assert {each.user_id for each in queue.waiting(5)} <= {"bob"}
    with database.read() as connection:
        left = connection.execute(select(t.alternatives)).all()
        assert len(left) == 3
    forget_user(database, "bob")
    assert (alternatives.count(), queue.counts()["waiting"]) == (0, 0)


def test_what_was_erased_while_the_engine_wrote_is_not_stored(
    alternatives: Alternatives, talk: Conversations, store: FeedbackStore, database: Database
) -> None:
    disliked(talk, store)
    (bad,) = alternatives.wanted(1)
    forget_user(database, "ann")
    with pytest.raises(UnknownId):
        write(alternatives, bad)
    assert alternatives.count() == 0


# Judging


def test_a_choice_of_the_operators_becomes_a_pair_on_the_persons_prompt(
    alternatives: Alternatives,
    queue: ComparisonQueue,
    talk: Conversations,
    store: FeedbackStore,
    training_set: TrainingSet,
) -> None:
    disliked(talk, store)
    write(alternatives, alternatives.wanted(1)[0], adapter="sha256:live")
    (waiting,) = queue.waiting(5)
    assert waiting.messages[-1].content == "Q of c1"
    queue.choose(waiting.id, OPERATOR, "right")
    assert queue.counts() == {"waiting": 0, "judged": 1, "skipped": 0}
    training_set.refresh()
    _, examples = training_set.load_examples()
    (pair,) = examples.pairs
    assert (pair.chosen.text, pair.rejected.text) == ("Two.", "One.")
    assert (pair.source, pair.origin.user_ids) == ("comparison", (OPERATOR,))
    assert pair.chosen.adapter == pair.rejected.adapter == "sha256:live"


def test_whoever_settles_it_first_decides(
    alternatives: Alternatives, queue: ComparisonQueue, talk: Conversations, store: FeedbackStore
) -> None:
    disliked(talk, store)
    write(alternatives, alternatives.wanted(1)[0])
    (waiting,) = queue.waiting(5)
    queue.choose(waiting.id, OPERATOR, "left")
    with pytest.raises(Conflict):
        queue.choose(waiting.id, "ann", "right", asked_by="ann")
    with pytest.raises(Conflict):
        queue.skip(waiting.id)


def test_nobody_judges_anothers_in_the_chat(
    alternatives: Alternatives, queue: ComparisonQueue, talk: Conversations, store: FeedbackStore
) -> None:
    disliked(talk, store)
    write(alternatives, alternatives.wanted(1)[0])
    assert queue.waiting(5, asked_by="bob") == []
    (waiting,) = queue.waiting(5, asked_by="ann")
    for refused in (waiting.id, waiting.id + 1):
        with pytest.raises(UnknownId):
            queue.choose(refused, "bob", "left", asked_by="bob")
    with pytest.raises(InvalidInput):
        queue.choose(waiting.id, "ann", "both", asked_by="ann")  # type: ignore[arg-type]


def test_what_was_undone_teaches_nothing_and_waits_again(
    alternatives: Alternatives,
    queue: ComparisonQueue,
    talk: Conversations,
    store: FeedbackStore,
    training_set: TrainingSet,
) -> None:
    disliked(talk, store)
    write(alternatives, alternatives.wanted(1)[0])
    (waiting,) = queue.waiting(5)
    queue.choose(waiting.id, OPERATOR, "left")
    queue.undo(waiting.id, OPERATOR)
    assert [each.id for each in queue.waiting(5)] == [waiting.id]
    assert training_set.refresh().count("pairs") == 0
    with pytest.raises(UnknownId):
        queue.undo(waiting.id, OPERATOR)
    queue.choose(waiting.id, OPERATOR, "right")
    assert training_set.refresh().count("pairs") == 1
    queue.undo(waiting.id, OPERATOR)
    queue.skip(waiting.id)
    queue.undo(waiting.id, OPERATOR)
    queue.choose(waiting.id, "ann", "left", asked_by="ann")
    with pytest.raises(UnknownId):
        queue.undo(waiting.id, OPERATOR)  # it is somebody else's choice now


def test_what_a_forgotten_judge_chose_waits_again(
    alternatives: Alternatives,
    queue: ComparisonQueue,
    talk: Conversations,
    store: FeedbackStore,
    database: Database,
) -> None:
    disliked(talk, store)
    write(alternatives, alternatives.wanted(1)[0])
    queue.choose(queue.waiting(1)[0].id, OPERATOR, "left")
    forget_user(database, OPERATOR)
    assert queue.counts() == {"waiting": 1, "judged": 0, "skipped": 0}
    queue.choose(queue.waiting(1)[0].id, OPERATOR, "left")


# What is asked first


def test_what_the_policy_is_least_sure_of_is_asked_first(
    alternatives: Alternatives, queue: ComparisonQueue, talk: Conversations, store: FeedbackStore
) -> None:
    """Nearest to 1/2 first; of equals, the prompt of the highest entropy; the live release's
    before an older one's."""
    written = [
        ("sure", 0.9, -1.0, "sha256:live"),
        ("nearly", 0.45, -1.0, "sha256:live"),
        ("unsure", 0.5, -1.0, "sha256:live"),
        ("unsure and varied", 0.5, -3.0, "sha256:live"),
        ("of an older release", 0.5, -9.0, None),
    ]
    for name, preference, logprob, adapter in written:
        disliked(talk, store, name)
        bad = alternatives.wanted(1)[0]
        write(alternatives, bad, preference=preference, logprob=logprob, adapter=adapter)
    found = queue.waiting(9, live="sha256:live")
    assert [each.conversation_id for each in found] == [
        "unsure and varied",
        "unsure",
        "nearly",
        "sure",
        "of an older release",
    ]
    assert queue.waiting(9)[0].conversation_id == "of an older release"
    rest = queue.waiting(9, live="sha256:live", beside=[found[0].id])
    assert rest[0].id == found[1].id


def test_people_who_refuse_later_are_not_asked_about(
    alternatives: Alternatives,
    queue: ComparisonQueue,
    talk: Conversations,
    store: FeedbackStore,
    database: Database,
    curation: Curation,
) -> None:
    disliked(talk, store)
    write(alternatives, alternatives.wanted(1)[0])
    curation.set_consent("ann", False)
    assert (queue.waiting(5), queue.counts()["waiting"]) == ([], 0)
    curation.set_consent("ann", True)
    ConversationList(database).delete("c1", "ann")
    assert (queue.waiting(5), queue.counts()["waiting"]) == ([], 0)


# The judge


def test_an_ai_judge_reads_alternatives_until_a_person_has_judged_one(
    alternatives: Alternatives,
    queue: ComparisonQueue,
    talk: Conversations,
    store: FeedbackStore,
    database: Database,
) -> None:
    disliked(talk, store, TRAIN)
    assert list(unjudged_siblings(database, store)) == []
    write(alternatives, alternatives.wanted(1)[0])
    (siblings,) = unjudged_siblings(database, store)
    assert {side.text for side in siblings.answers} == {"One.", "Two.", "Three."}  # not "Bad."
    queue.choose(queue.waiting(1)[0].id, OPERATOR, "left")
    assert list(unjudged_siblings(database, store)) == []
