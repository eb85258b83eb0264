"""What comes from files is in the store as if it had happened here, and says that it did not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import select

from engine.errors import InvalidText
from engine.messages import Message
from feedback_store import intake
from feedback_store import tables as t
from feedback_store.database import Database
from feedback_store.evidence import EvidenceReader
from feedback_store.records import (
    Evidence,
    ImportedAnswer,
    ImportedChoice,
    ImportedTurn,
    ImportedVote,
)
from feedback_store.store import FeedbackStore
from tests.feedback_store.conftest import PLAIN

PROMPT = (Message("system", "Be kind."), Message("user", "Which?"))
TURN = ImportedTurn(
    PROMPT,
    (
        ImportedAnswer(
            "This.", thought="Hm.", model="gpt", complete=False,
            votes=(ImportedVote("ann", 1, ("safe",), "Nice."), ImportedVote("bob", -1)),
        ),
        ImportedAnswer("That.", corrections=(("bob", "That one."),), flagged=True),
    ),
    choices=(ImportedChoice("ann", 1, 0, "right"),),
)  # fmt: skip


def evidence(database: Database) -> list[Evidence]:
    return list(EvidenceReader(database).all())


def test_everything_a_file_says_is_found_again(store: FeedbackStore, database: Database) -> None:
    assert store.add_imported([TURN], PLAIN, "importer") == 1
    (found,) = evidence(database)
    assert (found.prompt, found.user_id, found.template_hash) == (PROMPT, "importer", PLAIN.hash)
    this, that = sorted(found.answers, key=lambda answer: answer.text, reverse=True)
    assert [(a.text, a.thought, a.complete) for a in (this, that)] == [
        ("This.", "Hm.", False),
        ("That.", "", True),
    ]
    assert [store.answer(a.id, "importer").sampling for a in (this, that)] == [{"model": "gpt"}, {}]
    assert {(a.status, a.base_digest, a.adapter_digest) for a in found.answers} == {
        ("done", "imported", None)
    }
    assert [(v.answer_id, v.user_id, v.vote, v.reasons, v.comment) for v in found.votes] == [
        (this.id, "ann", 1, ("safe",), "Nice."),
        (this.id, "bob", -1, (), ""),
    ]
    assert [(c.answer_id, c.user_id, c.text) for c in found.corrections] == [
        (that.id, "bob", "That one.")
    ]
    assert [(c.left_answer_id, c.right_answer_id, c.choice) for c in found.choices] == [
        (that.id, this.id, "right")
    ]
    assert found.flagged == {that.id}


def test_a_flag_on_the_prompt_is_on_all_its_answers(
    store: FeedbackStore, database: Database
) -> None:
    answers = (ImportedAnswer("A"), ImportedAnswer("B"))
    store.add_imported([ImportedTurn(PROMPT, answers, flagged=True)], PLAIN, "importer")
    (found,) = evidence(database)
    assert found.flagged == {answer.id for answer in found.answers}


@pytest.mark.parametrize(
    ("names", "prompts", "conversations"),
    [(("a", "a"), ("1", "2"), 1), (("a", "b"), ("1", "1"), 2), (("", ""), ("1", "1"), 1),
     (("", ""), ("1", "2"), 2)],
    ids=["same name", "other names", "same prompt", "other prompts"],
)  # fmt: skip
def test_turns_that_belong_together_share_a_conversation(
    store: FeedbackStore, database: Database, names: tuple[str, str], prompts: tuple[str, str],
    conversations: int,
) -> None:  # fmt: skip
    """So that they fall on the same side of a split, today and from another file tomorrow."""
    for name, prompt in zip(names, prompts, strict=True):
        turn = ImportedTurn((Message("user", prompt),), (ImportedAnswer("A"),), conversation=name)
        store.add_imported([turn], PLAIN, "importer")
    with database.read() as connection:
        found = set(connection.scalars(select(t.turns.c.conversation_id)))
    assert len(found) == conversations
    assert all(each.startswith("import-") and len(each) <= 64 for each in found)


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_a_stream_of_turns_is_stored_whole_in_chunks(
    store: FeedbackStore, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(intake, "CHUNK_TURNS", chunk)
    turns = (
        ImportedTurn((Message("user", f"Q{number}"),), (ImportedAnswer("A"),))
        for number in range(5)
    )
    assert store.add_imported(turns, PLAIN, "importer") == 5
    assert (store.counts()["turns"], store.counts()["answers"]) == (5, 5)
    assert store.add_imported([], PLAIN, "importer") == 0


def test_of_a_file_that_breaks_off_nothing_is_stored(
    store: FeedbackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "CHUNK_TURNS", 1)

    def broken() -> Iterator[ImportedTurn]:
        yield TURN
        raise InvalidText("line 2 is no JSON")

    with pytest.raises(InvalidText):
        store.add_imported(broken(), PLAIN, "importer")
    assert not any(store.counts().values())


@pytest.mark.parametrize("user", ["a\x00b", "\ud800", "u" * 65])
def test_a_users_id_that_no_database_can_hold_is_refused_and_nothing_is_stored(
    store: FeedbackStore, user: str
) -> None:
    turn = ImportedTurn(PROMPT, (ImportedAnswer("A", votes=(ImportedVote(user, 1),)),))
    with pytest.raises(InvalidText, match="user's id"):
        store.add_imported([turn], PLAIN, "importer")
    assert not any(store.counts().values())
