"""What people asked, got and said is kept as it was, once, and for its owner alone."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from engine.errors import InvalidInput, InvalidText, UnknownId
from engine.messages import Message
from engine.prompts.examples import Example
from engine.prompts.modes import make_template
from feedback_store import tables
from feedback_store.database import Database
from feedback_store.records import Answer, Evidence, Turn
from feedback_store.store import FeedbackStore, new_id
from tests.feedback_store.conftest import PLAIN, Conversations

LIMIT_CHARS = 400_000


def everything(database: Database) -> dict[str, list[Any]]:
    """Every row of every table."""
    with database.read() as connection:
        return {
            table.name: sorted(map(str, connection.execute(select(table))))
            for table in tables.metadata.sorted_tables
        }


def only_evidence(store: FeedbackStore) -> Evidence:
    (evidence,) = store.evidence()
    return evidence


def current_votes(store: FeedbackStore) -> list[tuple[str, int]]:
    """(answer id, vote) of every vote that counts now."""
    return [(answer, vote) for e in store.evidence() for _, answer, _, vote in e.votes]


# Turns and answers


def test_a_finished_answer_reads_back_as_it_was_stored(store: FeedbackStore) -> None:
    turn = store.add_turn(
        user_id="ann", question="Why?", template=PLAIN, conversation_id="c1", parent_answer_id=None
    )
    answer_id = store.begin_answer(
        turn.id, base_digest="base", adapter_digest="adapter", sampling={"stop": ["x"]}, seed=2**62
    )
    store.finish_answer(
        answer_id, status="done", text="Because.", thought="Hm.", complete=True,
        prompt_tokens=7, completion_tokens=3,
    )  # fmt: skip
    found = store.answer(answer_id, "ann")
    assert found == Answer(
        answer_id, turn.id, "done", "Because.", "Hm.", True, "base", "adapter",
        {"stop": ["x"]}, 2**62, 7, 3, found.created_at,
    )  # fmt: skip


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
        ("user", "Q1"), ("assistant", "A1"),
        ("user", "Q2"), ("assistant", "A2"),
        ("user", "Q3"), ("assistant", "A3"),
    ]  # fmt: skip
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


# One user cannot touch, or learn of, what is another's

ON_AN_ANSWER: dict[str, Callable[[FeedbackStore, str, str], object]] = {
    "vote": lambda s, a, user: s.vote(a, user, 1),
    "correct": lambda s, a, user: s.correct(a, user, "Better."),
    "answer": lambda s, a, user: s.answer(a, user),
    "history": lambda s, a, user: s.history(a, user),
    "turn_of": lambda s, a, user: s.turn_of(a, user),
    "shown_prompt": lambda s, a, user: s.shown_prompt(a, user),
    "add_turn": lambda s, a, user: s.add_turn(
        user_id=user, question="And?", template=PLAIN, conversation_id="c1", parent_answer_id=a
    ),
}


@pytest.mark.parametrize("operation", ON_AN_ANSWER.values(), ids=ON_AN_ANSWER)
@pytest.mark.parametrize(("owner", "stranger"), [("ann", "bob"), ("bob", "ann")])
def test_unknown_and_foreign_answers_are_refused_alike_and_nothing_changes(
    store: FeedbackStore, talk: Conversations, database: Database,
    operation: Callable[[FeedbackStore, str, str], object], owner: str, stranger: str,
) -> None:  # fmt: skip
    foreign, unknown = talk.ask(user=owner), new_id()
    talk.ask(user=stranger, conversation="c2")
    before = everything(database)
    refusals = []
    for answer_id in (foreign, unknown):
        with pytest.raises(UnknownId) as refused:
            operation(store, answer_id, stranger)
        refusals.append(str(refused.value).replace(answer_id, "ID"))
    assert refusals[0] == refusals[1]
    assert everything(database) == before
    operation(store, foreign, owner)  # the owner may


def test_a_parent_from_another_conversation_is_refused(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    elsewhere = talk.ask(conversation="c1")
    before = everything(database)
    with pytest.raises(UnknownId):
        talk.ask(conversation="c2", parent=elsewhere)
    assert everything(database) == before


# Votes and corrections


def test_a_flipped_vote_counts_once_with_its_last_value(
    store: FeedbackStore, talk: Conversations
) -> None:
    answer_id = talk.ask()
    store.vote(answer_id, "ann", 1)
    store.vote(answer_id, "ann", -1)
    assert current_votes(store) == [(answer_id, -1)]
    assert store.event_count() == 2  # history is kept


def test_a_cleared_vote_is_no_vote(store: FeedbackStore, talk: Conversations) -> None:
    answer_id = talk.ask()
    store.vote(answer_id, "ann", 1)
    assert (store.counts()["votes"], store.counts()["votes_up"]) == (1, 1)
    store.vote(answer_id, "ann", 0)
    assert (store.counts()["votes"], store.counts()["votes_up"]) == (0, 0)


def test_a_replayed_vote_neither_counts_twice_nor_undoes_a_later_one(
    store: FeedbackStore, talk: Conversations
) -> None:
    answer_id = talk.ask()
    store.vote(answer_id, "ann", 1, idempotency_key="first")
    store.vote(answer_id, "ann", 1, idempotency_key="first")
    assert store.event_count() == 1
    store.vote(answer_id, "ann", -1, idempotency_key="second")
    store.vote(answer_id, "ann", 1, idempotency_key="first")
    assert current_votes(store) == [(answer_id, -1)]


def test_the_last_correction_is_the_one_that_counts(
    store: FeedbackStore, talk: Conversations
) -> None:
    answer_id = talk.ask()
    store.correct(answer_id, "ann", "Better.")
    store.correct(answer_id, "ann", "Best.")
    ((_, _, _, correction),) = only_evidence(store).corrections
    assert correction == "Best."


@pytest.mark.parametrize("vote", [2, -2, 0.5])
def test_a_vote_is_up_down_or_cleared(store: FeedbackStore, talk: Conversations, vote: Any) -> None:
    answer_id = talk.ask()
    with pytest.raises(InvalidInput):
        store.vote(answer_id, "ann", vote)
    assert store.event_count() == 0


def test_twenty_tabs_voting_at_once_leave_one_current_vote_and_all_of_history(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    answer_id, together = talk.ask(), threading.Barrier(20)

    def vote(number: int) -> None:
        together.wait()
        store.vote(answer_id, "ann", 1 if number % 2 else -1)

    with ThreadPoolExecutor(20) as tabs:
        list(tabs.map(vote, range(20)))
    with database.read() as connection:
        query = select(tables.events.c.vote).order_by(tables.events.c.id)
        written = list(connection.scalars(query))
    assert sorted(written) == [-1] * 10 + [1] * 10
    assert current_votes(store) == [(answer_id, written[-1])]


def test_counts_are_of_what_holds_now(store: FeedbackStore, talk: Conversations) -> None:
    first = talk.ask()
    second = talk.again(first, "Another.")
    store.vote(first, "ann", 1)
    store.vote(second, "ann", -1)
    store.correct(second, "ann", "Better.")
    counts = store.counts()
    assert {name: counts[name] for name in ("turns", "answers", "votes")} == {
        "turns": 1,
        "answers": 2,
        "votes": 2,
    }
    assert (counts["votes_up"], counts["votes_down"], counts["corrections"]) == (1, 1, 1)


def test_only_turns_with_feedback_are_evidence(store: FeedbackStore, talk: Conversations) -> None:
    talk.ask("nobody cared")
    voted = talk.ask("somebody did")
    talk.again(voted, "a sibling without a vote")
    store.vote(voted, "ann", 1)
    evidence = only_evidence(store)
    assert evidence.turn.question == "somebody did"
    assert [a.text for a in evidence.answers] == ["A leaf.", "a sibling without a vote"]


# Odd texts

KEPT = {
    "family emoji": "👨‍👩‍👧‍👦 and 🏳️‍🌈",
    "right-to-left override": "abc\u202edcba\u202c",
    "control token": "<|im_end|>\n<|im_start|>system",
    "combining marks": "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A",
    "windows newlines and tabs": "a\r\n\tb\r",
    "quotes and braces": "'; DROP TABLE events; -- {question} %s",
    "as long as allowed": "a" * LIMIT_CHARS,
}
REFUSED = {
    "NUL": "a\x00b",
    "lone surrogate": "a\ud800",
    "a megabyte": "a" * 1_000_000,
    "empty": "",
    "blank": " \n\t\u200b\u00a0",
}


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
def test_odd_text_is_kept_faithfully(store: FeedbackStore, talk: Conversations, text: str) -> None:
    answer_id = talk.ask(question=text, text=text)
    store.correct(answer_id, "ann", text)
    evidence = only_evidence(store)
    assert evidence.turn.question == text
    assert evidence.answers[0].text == text
    assert evidence.corrections[0][3] == text


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_text_that_is_none_is_refused_and_nothing_is_stored(
    store: FeedbackStore, talk: Conversations, database: Database, text: str
) -> None:
    answer_id = talk.ask()
    before = everything(database)
    with pytest.raises(InvalidText):
        talk.ask(question=text)
    with pytest.raises(InvalidText):
        store.correct(answer_id, "ann", text)
    assert everything(database) == before


INVISIBLE = {"Zs", "Zl", "Zp", "Cc", "Cf"}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=())), min_size=1, max_size=10))
def test_any_correction_is_kept_faithfully_or_refused_for_a_reason(texts: list[str]) -> None:
    with TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder) / 'burnish.db'}")
        store = FeedbackStore(database)
        answer_id = Conversations(store).ask()
        for text in texts:
            categories = {unicodedata.category(c) for c in text}
            if "\x00" in text or "Cs" in categories or categories <= INVISIBLE:
                with pytest.raises(InvalidText):
                    store.correct(answer_id, "ann", text)
            else:
                store.correct(answer_id, "ann", text)
                assert only_evidence(store).corrections[0][3] == text
        database.close()
