"""Turns and answers are kept as they were, and for their owner alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.errors import Conflict, UnknownId
from engine.messages import Message
from engine.prompts.examples import Example
from engine.prompts.modes import make_template
from feedback_store.records import StoredAnswer, Turn
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from feedback_store.storage.turns import new_id
from tests.feedback_store.conftest import PLAIN, Conversations
from tests.feedback_store.storage.contents import everything

# Turns and answers


def test_a_finished_answer_reads_back_as_it_was_stored(store: FeedbackStore) -> None:
    turn = store.add_turn(
        user_id="ann", question="Why?", template=PLAIN, conversation_id="c1", parent_answer_id=None
    )
    answer_id = store.begin_answer(
        turn.id, base_digest="base", adapter_digest="adapter", sampling={"stop": ["x"]}, seed=2**62
    )
    store.finish_answer(
        answer_id,
        status="done",
        text="Because.",
        thought="Hm.",
        complete=True,
        prompt_tokens=7,
        completion_tokens=3,
        first_token_at=1.5,
    )
    found = store.answer(answer_id, "ann")
    assert found == StoredAnswer(
        answer_id,
        turn.id,
        "done",
        "Because.",
        "Hm.",
        True,
        "base",
        "adapter",
        {"stop": ["x"]},
        2**62,
        7,
        3,
        found.created_at,
        1.5,
        found.finished_at,
        None,
    )


def test_a_turn_reads_back_as_it_was_stored(store: FeedbackStore, talk: Conversations) -> None:
    answer_id = talk.ask("Why?", user="ann", conversation="c1")
    found = store.turn_of(answer_id, "ann")
    assert found == Turn(found.id, "c1", None, "ann", "Why?", "plain", PLAIN.hash)


def test_the_history_of_three_turns_alternates_question_and_answer(
    store: FeedbackStore, talk: Conversations
) -> None:
    first = talk.ask("Q1", "A1")
    second = talk.ask("Q2", "A2", parent=first)
    third = talk.ask("Q3", "A3", parent=second)
    texts = [(m.role, m.content) for m in store.history(third, "ann")]
    assert texts == [
        ("user", "Q1"),
        ("assistant", "A1"),
        ("user", "Q2"),
        ("assistant", "A2"),
        ("user", "Q3"),
        ("assistant", "A3"),
    ]
    assert store.history(None, "ann") == []


def test_regenerated_answers_share_their_turn_and_keep_their_own_history(
    store: FeedbackStore, talk: Conversations
) -> None:
    first = talk.ask("Q1", "A1")
    sibling = talk.again(first, "A1 again")
    assert store.turn_of(first, "ann") == store.turn_of(sibling, "ann")
    assert [m.content for m in store.history(first, "ann")] == ["Q1", "A1"]
    assert [m.content for m in store.history(sibling, "ann")] == ["Q1", "A1 again"]


def test_the_prompt_that_was_shown_can_be_rebuilt_word_for_word(
    store: FeedbackStore, talk: Conversations
) -> None:
    template = make_template("few-shot", (Example("2+2?", "4", "two and two"),), "Be brief.")
    first = talk.ask("Q1 {x}", "A1", template=template)
    second = talk.ask("Q2", "A2", parent=first, template=template)
    _, messages = store.shown_prompt(second, "ann")
    assert messages == (
        Message("system", "Be brief."),
        Message("user", "2+2?"),
        Message("assistant", "4"),
        Message("user", "Q1 {x}"),
        Message("assistant", "A1"),
        Message("user", "Q2"),
    )


def test_a_prompt_that_was_given_is_shown_instead_of_the_template(store: FeedbackStore) -> None:
    given = (Message("system", "Trimmed."), Message("user", "Q9"))
    turn = store.add_turn(
        user_id="ann", question="Q9", template=PLAIN, conversation_id="c1", prompt=given
    )
    answer_id = Conversations(store).begin(turn.id)
    assert store.shown_prompt(answer_id, "ann") == (turn, given)


# Answers that are still being made


def test_a_partial_answer_is_kept_as_aborted(store: FeedbackStore, talk: Conversations) -> None:
    done = talk.ask(text="Whole.")
    streaming = talk.begin(store.turn_of(done, "ann").id)
    store.save_partial(streaming, "Half an ans")
    assert store.abort_unfinished() == 1
    assert store.abort_unfinished() == 0
    aborted = store.answer(streaming, "ann")
    assert (aborted.status, aborted.text) == ("aborted", "Half an ans")
    assert store.answer(done, "ann").status == "done"


@pytest.mark.parametrize("status", ["done", "stopped", "failed", "aborted"])
def test_a_late_partial_save_does_not_touch_an_answer_that_has_ended(
    store: FeedbackStore, talk: Conversations, status: Any
) -> None:
    ended = talk.finish(talk.begin(store.turn_of(talk.ask(), "ann").id), "The end.", status)
    store.save_partial(ended, "The e")
    assert (store.answer(ended, "ann").status, store.answer(ended, "ann").text) == (
        status,
        "The end.",
    )


# Several servers on one store


@pytest.fixture
def other(database: Database) -> FeedbackStore:
    """The same store, as another server has it open."""
    return FeedbackStore(database)


@pytest.fixture
def elsewhere(store: FeedbackStore, talk: Conversations, other: FeedbackStore) -> str:
    """An answer that the other server is writing."""
    answer_id = Conversations(other).begin(store.turn_of(talk.ask(), "ann").id)
    assert other.save_partial(answer_id, "Half an")
    return answer_id


def test_only_answers_of_servers_that_are_gone_are_closed(
    store: FeedbackStore, other: FeedbackStore, elsewhere: str
) -> None:
    assert store.streaming_elsewhere("c1", "ann") == [elsewhere]
    assert store.streaming_elsewhere("c1", "bob") == other.streaming_elsewhere("c1", "ann") == []
    assert store.abort_unfinished({store.writer, other.writer}) == 0
    assert store.abort_unfinished({store.writer}) == 1
    assert store.answer(elsewhere, "ann").status == "aborted"
    assert store.streaming_elsewhere("c1", "ann") == []


def test_a_server_that_was_thought_dead_still_stores_the_end_of_its_answer(
    store: FeedbackStore, other: FeedbackStore, elsewhere: str
) -> None:
    store.abort_unfinished({store.writer})
    assert other.save_partial(elsewhere, "Half an answ")
    other.finish_answer(elsewhere, status="done", text="The whole answer.", complete=True)
    stored = store.answer(elsewhere, "ann")
    assert (stored.status, stored.text) == ("done", "The whole answer.")


def test_an_answer_that_was_continued_here_is_no_longer_written_there(
    store: FeedbackStore, other: FeedbackStore, elsewhere: str
) -> None:
    store.abort_unfinished({store.writer})
    assert store.reopen_answer(elsewhere, "ann").text == "Half an"
    assert not other.save_partial(elsewhere, "Half an answ")
    with pytest.raises(Conflict, match="another server"):
        other.finish_answer(elsewhere, status="done", text="Theirs.")
    assert store.answer(elsewhere, "ann").text == "Half an"
    store.finish_answer(elsewhere, status="done", text="Half an answer.", complete=True)
    assert other.answer(elsewhere, "ann").text == "Half an answer."


def test_a_person_may_stop_an_answer_from_any_server(
    store: FeedbackStore, other: FeedbackStore, elsewhere: str
) -> None:
    with pytest.raises(UnknownId):
        store.want_stop(elsewhere, "bob")
    assert other.save_partial(elsewhere, "Half an answ")
    store.want_stop(elsewhere, "ann")
    assert not other.save_partial(elsewhere, "Half an answer")
    other.finish_answer(elsewhere, status="stopped", text="Half an answer")
    other.reopen_answer(elsewhere, "ann")  # what is continued is not stopped again
    assert other.save_partial(elsewhere, "Half an answer and")


# One user cannot touch, or learn of, what is another's

ON_AN_ANSWER: dict[str, Callable[[FeedbackStore, str, str], object]] = {
    "vote": lambda s, a, user: s.vote(a, user, 1, reasons=["safe"], comment="Good."),
    "correct": lambda s, a, user: s.correct(a, user, "Better."),
    "copy": lambda s, a, user: s.note(a, user, "copy"),
    "flag": lambda s, a, user: s.note(a, user, "flag"),
    "regeneration": lambda s, a, user: s.note(a, user, "regeneration"),
    "answer": lambda s, a, user: s.answer(a, user),
    "history": lambda s, a, user: s.history(a, user),
    "turn_of": lambda s, a, user: s.turn_of(a, user),
    "shown_prompt": lambda s, a, user: s.shown_prompt(a, user),
    "add_turn": lambda s, a, user: s.add_turn(
        user_id=user, question="And?", template=PLAIN, conversation_id="c1", parent_answer_id=a
    ),
}


@pytest.mark.parametrize("operation", ON_AN_ANSWER.values(), ids=ON_AN_ANSWER)
def test_unknown_and_foreign_answers_are_refused_alike_and_nothing_changes(
    store: FeedbackStore,
    talk: Conversations,
    database: Database,
    operation: Callable[[FeedbackStore, str, str], object],
) -> None:
    foreign, unknown = talk.ask(user="ann"), new_id()
    talk.ask(user="bob", conversation="c2")
    before = everything(database)
    refusals = []
    for answer_id in (foreign, unknown):
        with pytest.raises(UnknownId) as refused:
            operation(store, answer_id, "bob")
        refusals.append(str(refused.value).replace(answer_id, "ID"))
    assert refusals[0] == refusals[1]
    assert everything(database) == before
    operation(store, foreign, "ann")  # the owner may


def test_unknown_and_foreign_comparisons_are_refused_alike_and_nothing_changes(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    left = talk.ask(user="ann")
    foreign, unknown = store.compare(left, talk.again(left, "B"), "ann").id, new_id()
    before = everything(database)
    refusals = []
    for comparison_id in (foreign, unknown):
        with pytest.raises(UnknownId) as refused:
            store.choose(comparison_id, "bob", "left")
        refusals.append(str(refused.value).replace(comparison_id, "ID"))
    assert refusals[0] == refusals[1]
    assert everything(database) == before
    store.choose(foreign, "ann", "left")


@pytest.mark.parametrize("at", [0, 1], ids=["left", "right"])
def test_a_comparison_with_a_foreign_or_unknown_answer_is_refused(
    store: FeedbackStore, talk: Conversations, database: Database, at: int
) -> None:
    own, foreign = talk.ask(user="bob", conversation="c2"), talk.ask(user="ann")
    before = everything(database)
    for other in (foreign, new_id()):
        two = [own, own]
        two[at] = other
        with pytest.raises(UnknownId, match="no answer"):
            store.compare(two[0], two[1], "bob")
    assert everything(database) == before


def test_a_parent_from_another_conversation_is_refused(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    elsewhere = talk.ask(conversation="c1")
    before = everything(database)
    with pytest.raises(UnknownId):
        talk.ask(conversation="c2", parent=elsewhere)
    assert everything(database) == before


def test_somebody_elses_conversation_is_refused_and_nothing_changes(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    talk.ask(user="ann", conversation="c1")
    before = everything(database)
    with pytest.raises(UnknownId, match="no conversation 'c1'"):
        talk.ask(user="bob", conversation="c1")
    assert everything(database) == before
