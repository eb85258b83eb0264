"""What people asked, got and said is kept as it was, once, and for its owner alone."""

from __future__ import annotations

import shutil
import threading
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from engine.errors import InvalidInput, InvalidText, UnknownId
from engine.messages import Message
from engine.prompts.examples import Example
from engine.prompts.modes import make_template
from feedback_store.records import BAD_REASONS, GOOD_REASONS, PromptEvidence, StoredAnswer, Turn
from feedback_store.storage import tables
from feedback_store.storage.answers import new_id
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import PLAIN, Conversations

LIMIT_CHARS = 400_000


def everything(database: Database) -> dict[str, list[Any]]:
    """Every row of every table."""
    with database.read() as connection:
        return {
            table.name: sorted(map(str, connection.execute(select(table))))
            for table in tables.feedback_metadata.sorted_tables
        }


def only_evidence(database: Database) -> PromptEvidence:
    (evidence,) = EvidenceReader(database).all()
    return evidence


def current_votes(database: Database) -> list[tuple[str, int]]:
    """(answer id, vote) of every vote that counts now."""
    return [(v.answer_id, v.vote) for e in EvidenceReader(database).all() for v in e.votes]


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


# Votes and corrections


def test_a_flipped_vote_counts_once_with_its_last_value(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    answer_id = talk.ask()
    store.vote(answer_id, "ann", 1)
    store.vote(answer_id, "ann", -1)
    assert current_votes(database) == [(answer_id, -1)]
    assert store.event_count() == 2  # history is kept


def test_a_cleared_vote_is_no_vote(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    answer_id = talk.ask()
    store.vote(answer_id, "ann", 1)
    assert (store.counts()["votes"], store.counts()["votes_up"]) == (1, 1)
    store.vote(answer_id, "ann", 0)
    assert (store.counts()["votes"], store.counts()["votes_up"]) == (0, 0)
    assert current_votes(database) == []


def test_a_replayed_vote_neither_counts_twice_nor_undoes_a_later_one(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    answer_id = talk.ask()
    store.vote(answer_id, "ann", 1, idempotency_key="first")
    store.vote(answer_id, "ann", 1, idempotency_key="first")
    assert store.event_count() == 1
    store.vote(answer_id, "ann", -1, idempotency_key="second")
    store.vote(answer_id, "ann", 1, idempotency_key="first")
    assert current_votes(database) == [(answer_id, -1)]


def test_two_users_may_use_the_same_key(store: FeedbackStore, talk: Conversations) -> None:
    store.vote(talk.ask(user="ann"), "ann", 1, idempotency_key="1")
    store.vote(talk.ask(user="bob", conversation="c2"), "bob", 1, idempotency_key="1")
    assert store.counts()["votes"] == 2


@pytest.mark.parametrize("vote", [1, -1])
def test_reasons_and_comment_are_kept_with_the_vote(
    store: FeedbackStore, talk: Conversations, database: Database, vote: Any
) -> None:
    answer_id = talk.ask()
    reasons = GOOD_REASONS if vote > 0 else BAD_REASONS
    comment = "Weiß ich nicht; 'ne Frage? 好"
    store.vote(answer_id, "ann", vote, reasons=[*reasons, reasons[0]], comment=comment)
    (said,) = only_evidence(database).votes
    assert (said.vote, said.comment) == (vote, comment)
    assert said.reasons == tuple(sorted(reasons))  # each once


def test_a_later_vote_has_its_own_reasons_or_none(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    answer_id = talk.ask()
    store.vote(answer_id, "ann", -1, reasons=["too_long"], comment="Endless.")
    store.vote(answer_id, "ann", 1)
    (said,) = only_evidence(database).votes
    assert (said.vote, said.reasons, said.comment) == (1, (), "")


@pytest.mark.parametrize(
    ("vote", "reasons", "known"),
    [
        (-1, ["boring"], BAD_REASONS),
        (-1, ["too_long", "right_facts"], BAD_REASONS),
        (1, ["wrong_facts"], GOOD_REASONS),
        (0, ["other"], ("none",)),
    ],
    ids=["unknown", "of a thumb up", "of a thumb down", "of no thumb"],
)
def test_a_word_that_is_no_reason_for_this_vote_is_refused_naming_those_that_are(
    store: FeedbackStore, talk: Conversations, vote: Any, reasons: list[str], known: tuple[str, ...]
) -> None:
    answer_id = talk.ask()
    with pytest.raises(InvalidInput) as refused:
        store.vote(answer_id, "ann", vote, reasons=reasons)
    assert repr(reasons[-1]) in str(refused.value)
    assert str(refused.value).endswith(f"known: {', '.join(known)}")
    assert store.event_count() == 0


@pytest.mark.parametrize("comment", ["a\x00b", "a\ud800", "a" * 4_001])
def test_a_comment_that_is_no_text_or_a_book_is_refused(
    store: FeedbackStore, talk: Conversations, comment: str
) -> None:
    answer_id = talk.ask()
    with pytest.raises(InvalidText, match="comment"):
        store.vote(answer_id, "ann", 1, comment=comment)
    with pytest.raises(InvalidText):
        store.vote(answer_id, "ann", 1, idempotency_key=comment)
    assert store.event_count() == 0


def test_the_last_correction_is_the_one_that_counts(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    answer_id = talk.ask()
    store.correct(answer_id, "ann", "Better.")
    store.correct(answer_id, "ann", "Best.")
    (said,) = only_evidence(database).corrections
    assert (said.answer_id, said.user_id, said.text) == (answer_id, "ann", "Best.")


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
    assert current_votes(database) == [(answer_id, written[-1])]


# Comparisons and what is merely noted


def test_a_comparison_remembers_who_stood_where_and_the_last_choice_counts(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    one = talk.ask(text="A")
    other = talk.again(one, "B")
    comparison = store.compare(other, one, "ann")
    store.choose(comparison.id, "ann", "left", idempotency_key="first")
    store.choose(comparison.id, "ann", "both_bad")
    store.choose(comparison.id, "ann", "left", idempotency_key="first")  # a replay
    (said,) = only_evidence(database).choices
    assert (said.left_answer_id, said.right_answer_id) == (other, one)
    assert (said.user_id, said.choice) == ("ann", "both_bad")
    assert store.event_count() == 2


def test_only_two_answers_to_the_same_question_can_be_compared(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    one, elsewhere = talk.ask(), talk.ask("Another question?")
    before = everything(database)
    for other in (one, elsewhere):
        with pytest.raises(InvalidInput, match="same question"):
            store.compare(one, other, "ann")
    assert everything(database) == before


def test_answers_to_two_turns_with_the_very_same_messages_can_be_compared(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    one, two = talk.ask(text="One."), talk.ask(text="Two.")
    other, elsewhere = talk.ask("Another?"), talk.ask(conversation="c2")
    first, second = (store.compare(one, two, "ann", once=True) for _ in range(2))
    assert first.id == second.id
    store.choose(first.id, "ann", "right")
    evidence = only_evidence(database)
    assert [answer.text for answer in evidence.answers] == ["One.", "Two."]
    assert [choice.winner for choice in evidence.choices] == [two]
    for wrong in (other, elsewhere, one):
        with pytest.raises(InvalidInput, match="the same question"):
            store.compare(one, wrong, "ann", once=True)


def test_what_is_taken_back_counts_no_more_and_its_history_stays(
    store: FeedbackStore, talk: Conversations, database: Database
) -> None:
    one = talk.ask()
    two = talk.again(one, "A green thing.")
    store.vote(one, "ann", 1, reasons=["other"])
    store.correct(one, "ann", "A part of a tree.")
    store.choose(store.compare(two, one, "ann").id, "ann", "left")
    said = store.statements_on(one, "ann")
    assert said.vote is not None
    assert (said.vote.vote, said.correction) == (1, "A part of a tree.")
    assert [choice.winner for choice in said.choices] == [two]
    with pytest.raises(UnknownId):
        store.withdraw(one, "bob")
    counted = store.counts()
    assert (counted["votes"], counted["corrections"]) == (1, 1)
    for _ in range(2):
        store.withdraw(one, "ann")
    left = store.statements_on(one, "ann")
    assert (left.vote, left.correction, [each.choice for each in left.choices]) == (
        None,
        None,
        ["tie"],
    )
    counted = store.counts()
    assert (counted["votes"], counted["corrections"]) == (0, 0)
    assert counted == FeedbackStore(database).counts()  # which counts from nothing
    assert len(everything(database)["events"]) == 6
    (evidence,) = EvidenceReader(database).all()
    assert (evidence.votes, evidence.corrections) == ((), ())
    store.correct(one, "ann", "A leaf of a tree.")
    assert store.statements_on(one, "ann").correction == "A leaf of a tree."


def test_a_choice_is_one_of_four_words(store: FeedbackStore, talk: Conversations) -> None:
    one = talk.ask()
    comparison = store.compare(one, talk.again(one, "B"), "ann")
    with pytest.raises(InvalidInput, match="left, right, tie, both_bad"):
        store.choose(comparison.id, "ann", "neither")  # type: ignore[arg-type]
    assert store.event_count() == 0


def test_counts_are_of_what_holds_now_and_of_what_was_done(
    store: FeedbackStore, talk: Conversations
) -> None:
    first = talk.ask()
    second = talk.again(first, "Another.")
    comparison = store.compare(first, second, "ann")
    for _ in range(2):  # the second time changes what was said, or does the same once more
        store.vote(first, "ann", 1)
        store.vote(second, "ann", -1)
        store.correct(second, "ann", "Better.")
        store.choose(comparison.id, "ann", "tie")
        for kind in ("flag", "copy", "regeneration"):
            store.note(first, "ann", kind)
    assert store.counts() == {
        "turns": 1,
        "answers": 2,
        "votes": 2,
        "votes_up": 1,
        "votes_down": 1,
        "corrections": 1,
        "comparisons": 1,
        "flags": 1,
        "regenerations": 2,
        "copies": 2,
    }
    assert store.event_count() == 14


def test_the_operator_can_read_answers_whoever_they_are_for(
    store: FeedbackStore, talk: Conversations
) -> None:
    answers = {
        talk.ask(text=f"A{n}", user=f"user-{n}", conversation=f"c{n}"): f"A{n}" for n in range(3)
    }
    assert store.texts([*answers, *answers, "unknown"]) == answers
    assert store.texts([]) == {}


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
def test_odd_text_is_kept_faithfully(
    store: FeedbackStore, talk: Conversations, database: Database, text: str
) -> None:
    answer_id = talk.ask(question=text, text=text)
    store.correct(answer_id, "ann", text)
    evidence = only_evidence(database)
    assert evidence.prompt[-1].content == text
    assert evidence.answers[0].text == text
    assert evidence.corrections[0].text == text


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


Corrected = tuple[Database, FeedbackStore, str]  # and the answer's id
INVISIBLE = {"Zs", "Zl", "Zp", "Cc", "Cf"}


@pytest.fixture(scope="module")
def one_answer(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corrected]:
    """A store with one answer, which many corrections correct one after the other."""
    folder = tmp_path_factory.mktemp("corrected")
    shutil.copy(migrated, folder)
    database = Database(f"sqlite:///{folder / 'burnish.db'}")
    store = FeedbackStore(database)
    yield database, store, Conversations(store).ask()
    database.close()


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_any_correction_is_kept_faithfully_or_refused_for_a_reason(
    one_answer: Corrected, text: str
) -> None:
    database, store, answer_id = one_answer
    categories = {unicodedata.category(c) for c in text}
    if "\x00" in text or "Cs" in categories or categories <= INVISIBLE:
        with pytest.raises(InvalidText):
            store.correct(answer_id, "ann", text)
    else:
        store.correct(answer_id, "ann", text)
        assert only_evidence(database).corrections[0].text == text


def test_two_people_may_use_the_same_idempotency_key(
    store: FeedbackStore, talk: Conversations
) -> None:
    for user in ("ann", "bob"):
        store.vote(talk.ask(user=user, conversation=user), user, 1, idempotency_key="1")
    assert store.counts()["votes_up"] == 2
