"""What comes from files is in the store as if it had happened here, and says that it did not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from sqlalchemy import select

from engine.errors import InvalidText
from engine.messages import Message
from feedback_store.conversations.conversation_list import Conversations
from feedback_store.examples.split import split_of
from feedback_store.formats.importing import CONVERSATION
from feedback_store.records import (
    ImportedAnswer,
    ImportedChoice,
    ImportedTurn,
    ImportedVote,
    PromptEvidence,
)
from feedback_store.storage import import_writer
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import PLAIN
from tests.feedback_store.conftest import Conversations as Talk

PROMPT = (Message("system", "Be kind."), Message("user", "Which?"))
TURN = ImportedTurn(
    PROMPT,
    (
        ImportedAnswer(
            "This.",
            thought="Hm.",
            model="gpt",
            complete=False,
            votes=(ImportedVote("ann", 1, ("safe",), "Nice."), ImportedVote("bob", -1)),
        ),
        ImportedAnswer("That.", corrections=(("bob", "That one."),), flagged=True),
    ),
    choices=(ImportedChoice("ann", 1, 0, "right"),),
)


def evidence(database: Database) -> list[PromptEvidence]:
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
    [
        (("a", "a"), ("1", "2"), 1),
        (("a", "b"), ("1", "1"), 2),
        (("", ""), ("1", "1"), 1),
        (("", ""), ("1", "2"), 2),
    ],
    ids=["same name", "other names", "same prompt", "other prompts"],
)
def test_turns_that_belong_together_share_a_conversation(
    store: FeedbackStore,
    database: Database,
    names: tuple[str, str],
    prompts: tuple[str, str],
    conversations: int,
) -> None:
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
    monkeypatch.setattr(import_writer, "CHUNK_TURNS", chunk)
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
    monkeypatch.setattr(import_writer, "CHUNK_TURNS", 1)

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


# Into a person's own list


def said(*texts: str) -> tuple[Message, ...]:
    """A question, an answer, a question and so on."""
    return tuple(
        Message("assistant" if number % 2 else "user", text) for number, text in enumerate(texts)
    )


def asked(*texts: str, answers: Sequence[str] = ("A",), name: str = "chat") -> ImportedTurn:
    """A turn after others, with its answers."""
    return ImportedTurn(
        said(*texts), tuple(ImportedAnswer(text) for text in answers), conversation=name
    )


CHAT = [
    asked("Q1", answers=["A1", "A1 again"]),
    asked("Q1", "A1", "Q2", answers=["A2"]),
    asked("Q1", "A1 again", "Q3", answers=["A3"]),
    asked("Q1", "A1", "Q2", " A2\n", "Q4", answers=["A4"]),  # with white space around an answer
]


def shown(database: Database, user: str) -> list[list[tuple[str, str]]]:
    """Of each conversation, newest first, question and answer of each turn that is shown."""
    conversations = Conversations(database)
    return [
        [(turn.turn.question, turn.answer.text) for turn in conversations.view(s.id, user).turns]
        for s in conversations.page(user)
    ]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0)])
def test_the_turns_of_a_listed_import_follow_each_other(
    store: FeedbackStore, database: Database, order: tuple[int, ...]
) -> None:
    turns = [CHAT[at] for at in order]
    assert store.add_conversations([*turns, asked("Other", name="other")], CONVERSATION, "ann")
    assert shown(database, "ann") == [[("Other", "A")], [("Q1", "A1"), ("Q2", "A2"), ("Q4", "A4")]]
    conversations = Conversations(database)
    other, chat = conversations.page("ann")
    assert (other.title, chat.title) == ("Other", "Q1")
    view = conversations.view(chat.id, "ann")
    conversations.show(chat.id, "ann", view.turns[0].answers[1])
    assert shown(database, "ann")[1] == [("Q1", "A1 again"), ("Q3", "A3")]
    assert [e.summary.id for e in conversations.search("ann", "q3")] == [chat.id]
    assert [e.summary.id for e in conversations.search("ann", "a1 again")] == [chat.id]


def test_a_turn_follows_the_nearest_answer_that_is_known(
    store: FeedbackStore, database: Database
) -> None:
    """A file of ratings holds the rated answers alone; the title is of the first question."""
    rated = [
        asked("Q1", "A1", "Q2", answers=["A2"]),
        asked("Q1", "A1", "Q2", "A2", "Q3", "A3", "Q4"),
    ]
    store.add_conversations(rated, CONVERSATION, "ann")
    assert shown(database, "ann") == [[("Q2", "A2"), ("Q4", "A")]]
    assert Conversations(database).page("ann")[0].title == "Q1"


def test_a_listed_conversation_can_be_gone_on_with(
    store: FeedbackStore, database: Database
) -> None:
    store.add_conversations(CHAT, CONVERSATION, "ann")
    (summary,) = Conversations(database).page("ann")
    leaf = Conversations(database).view(summary.id, "ann").turns[-1].answer.id
    assert [m.content for m in store.history(leaf, "ann")] == ["Q1", "A1", "Q2", "A2", "Q4", "A4"]
    talk = Talk(store)
    talk.ask("Q5", "A5", conversation=summary.id, parent=leaf)
    assert shown(database, "ann")[0][-2:] == [("Q4", "A4"), ("Q5", "A5")]


def test_people_do_not_share_a_listed_conversation(
    store: FeedbackStore, database: Database
) -> None:
    """But all fall on the side of the split on which a file of judgements has it."""
    for number in range(10):
        turns = [asked(f"Q{number}", name=f"chat {number}")]
        store.add_imported(turns, PLAIN, "import")
        for user in ("ann", "bob"):
            store.add_conversations(turns, CONVERSATION, user)
    ann, bob = (Conversations(database).page(user) for user in ("ann", "bob"))
    assert (len(ann), len(bob), len({s.id for s in (*ann, *bob)})) == (10, 10, 20)
    with database.read() as connection:
        query = select(t.turns.c.question, t.turns.c.conversation_id)
        sides: dict[str, set[str]] = {}
        for question, conversation_id in connection.execute(query):
            sides.setdefault(question, set()).add(split_of(conversation_id))
    assert [len(each) for each in sides.values()] == [1] * 10


def test_an_import_of_judgements_is_in_nobodys_list(
    store: FeedbackStore, database: Database
) -> None:
    store.add_imported(CHAT, PLAIN, "ann")
    assert shown(database, "ann") == []
    assert Conversations(database).search("ann", "q1") == []


@pytest.mark.parametrize("chunk", [1, 2])
def test_the_turns_of_a_listed_conversation_may_come_in_several_chunks(
    store: FeedbackStore, database: Database, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(import_writer, "CHUNK_TURNS", chunk)
    store.add_conversations(CHAT, CONVERSATION, "ann")
    assert shown(database, "ann") == [[("Q1", "A1"), ("Q2", "A2"), ("Q4", "A4")]]


def test_a_listed_conversation_has_its_own_title_on_its_own_day(
    store: FeedbackStore, database: Database
) -> None:
    """Else the first question, today; what it is called is found, too."""
    then = [replace(turn, title=" The\n letters ", time=1.6e9 + n) for n, turn in enumerate(CHAT)]
    assert store.add_conversations([*then, asked("Now?", name="new")], CONVERSATION, "ann") == 2
    new, old = Conversations(database).page("ann")
    assert (old.title, old.updated_at) == ("The letters", 1.6e9 + 3)
    assert new.title == "Now?"
    assert time.time() - new.updated_at < 600
    assert [e.summary.id for e in Conversations(database).search("ann", "letters")] == [old.id]


def test_the_branch_at_which_a_conversation_was_left_is_shown(
    store: FeedbackStore, database: Database
) -> None:
    first, second, third, fourth = CHAT
    store.add_conversations([first, second, replace(third, left_at=0), fourth], CONVERSATION, "ann")
    assert shown(database, "ann") == [[("Q1", "A1 again"), ("Q3", "A3")]]
    store.add_conversations([replace(first, left_at=1)], CONVERSATION, "bob")
    assert shown(database, "bob") == [[("Q1", "A1 again")]]


def test_the_same_conversation_again_is_stored_once_and_what_is_new_is_added(
    store: FeedbackStore, database: Database
) -> None:
    conversations = Conversations(database)
    assert store.add_conversations(CHAT[:2], CONVERSATION, "ann") == 1
    (summary,) = conversations.page("ann")
    conversations.rename(summary.id, "ann", "Mine")
    before = store.counts()
    assert store.add_conversations(CHAT[:2], CONVERSATION, "ann") == 0
    assert store.counts() == before
    leaf = conversations.view(summary.id, "ann").turns[-1].answer.id
    Talk(store).ask("Here?", "Yes.", conversation=summary.id, parent=leaf)
    assert store.add_conversations(CHAT, CONVERSATION, "ann") == 1
    assert [s.title for s in conversations.page("ann")] == ["Mine"]
    assert shown(database, "ann") == [[("Q1", "A1"), ("Q2", "A2"), ("Q4", "A4")]]
    conversations.show(summary.id, "ann", leaf)
    (turn,) = [t for t in conversations.view(summary.id, "ann").turns if len(t.siblings) > 1]
    assert len(turn.siblings) == 2  # what was asked here is there still
    conversations.delete(summary.id, "ann")
    assert store.add_conversations(CHAT, CONVERSATION, "ann") == 1  # it is there anew
    assert len(conversations.page("ann")) == 1


def test_a_listed_turn_was_shown_its_questions_and_answers_and_they_are_stored_once(
    store: FeedbackStore, database: Database
) -> None:
    ruled = asked("Q1", "A1", "Q2", name="ruled")
    ruled = replace(ruled, prompt=(Message("system", "Rhyme."), *ruled.prompt))
    store.add_conversations([ruled, *CHAT], CONVERSATION, "ann")
    prompts = []
    for summary in Conversations(database).page("ann"):
        leaf = Conversations(database).view(summary.id, "ann").turns[-1].answer.id
        _, prompt = store.shown_prompt(leaf, "ann")
        prompts.append([m.content.strip() for m in prompt])
    assert prompts == [["Q1", "A1", "Q2", "A2", "Q4"], ["Rhyme.", "Q1", "A1", "Q2"]]
    with database.read() as connection:
        stored = connection.scalars(select(t.turns.c.prompt)).all()
    assert [prompt for prompt in stored if prompt] == [[m.as_dict() for m in ruled.prompt]]


def test_nothing_is_evidence_before_somebody_votes(
    store: FeedbackStore, database: Database
) -> None:
    store.add_conversations(CHAT, CONVERSATION, "ann")
    assert evidence(database) == []
    (summary,) = Conversations(database).page("ann")
    leaf = Conversations(database).view(summary.id, "ann").turns[-1].answer.id
    store.vote(leaf, "ann", 1)
    (found,) = evidence(database)
    assert [m.content.strip() for m in found.prompt] == ["Q1", "A1", "Q2", "A2", "Q4"]
