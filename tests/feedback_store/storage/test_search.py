"""What is searched for is found by the same words on both databases, newest first."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from engine.errors import InvalidText
from feedback_store.conversations.conversation_list import Conversations
from feedback_store.storage import search
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.search import (
    document_terms,
    excerpt,
    parse_query,
    person_key,
    search_terms,
)
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import PLAIN
from tests.feedback_store.conftest import Conversations as Talk
from tests.feedback_store.people import files_with


@pytest.fixture
def conversations(store: FeedbackStore, database: Database) -> Conversations:
    return Conversations(database)


def found(conversations: Conversations, words: str, user: str = "ann") -> list[str]:
    return [each.summary.id for each in conversations.search(user, words)]


# Terms


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("What is a LEAF, what?", "what is a leaf"),
        ("don't snake_case 3.14", "don t snake case 3 14"),
        ("ﬁne Ｗｉｄｅ", "fine wide"),  # NFKC
        ("Größe ÉTÉ", "größe été"),
        ("機械学", "機 機械 械 械学 学"),
        ("PyTorchで学ぶ", "pytorch で で学 学 学ぶ ぶ"),
        ("한국", "한 한국 국"),
        ("हिन्दी", "हिन्दी"),  # a word with its vowel signs
        ("👍🏽 ❤️ … !", ""),  # a variation selector alone is no word
        ("x" * 70, "x" * 64),
        ("", ""),
    ],
)
def test_the_terms_of_a_text(text: str, terms: str) -> None:
    assert search_terms(text) == terms


def test_a_persons_terms_begin_with_a_key_of_theirs() -> None:
    ann, bob = person_key("ann"), person_key("bob")
    assert (len(ann), ann == bob) == (8, False)
    assert document_terms("A leaf", "ann") == f"{ann}a {ann}leaf"


@pytest.mark.parametrize(
    ("words", "terms", "prefix"),
    [
        ("a leaf", ("a",), "leaf"),
        ("a leaf ", ("a", "leaf"), ""),
        ("leaf?", ("leaf",), ""),
        ("leaf a", ("leaf", "a"), ""),  # one letter is the beginning of too many words
        ("機械学", ("機械", "械学"), ""),
        ("機", ("機",), ""),
        ("x" * 70, ("x" * 64,), ""),
    ],
)
def test_a_last_word_that_is_still_typed_is_a_beginning(
    words: str, terms: tuple[str, ...], prefix: str
) -> None:
    query = parse_query(words)
    assert query is not None
    assert (query.terms, query.prefix) == (terms, prefix)


@pytest.mark.parametrize("words", ["", "  ", "?!", "👍"])
def test_without_a_word_nothing_is_looked_for(words: str, conversations: Conversations) -> None:
    assert parse_query(words) is None
    assert conversations.search("ann", words) == []


@pytest.mark.parametrize("words", ["a\x00b", "\ud800", "x" * 1001])
def test_what_is_no_text_is_refused(words: str) -> None:
    with pytest.raises(InvalidText, match="search"):
        parse_query(words)


# Finding


def test_every_word_must_occur_in_one_text(talk: Talk, conversations: Conversations) -> None:
    talk.ask("What is a leaf?", "A green part of a plant.", conversation="c1")
    talk.ask("Are plants green?", "Most of them.", conversation="c2")
    assert found(conversations, "green plant") == ["c2", "c1"]  # "plant" begins "plants"
    assert found(conversations, "green plant ") == ["c1"]
    assert found(conversations, "leaf green ") == []  # one in the question, one in the answer
    assert found(conversations, "GREEN  of, a") == ["c1"]
    assert found(conversations, "stone") == []


def test_words_in_scripts_without_spaces_are_found_by_any_part(
    talk: Talk, conversations: Conversations
) -> None:
    talk.ask("機械学習とは何ですか", "データから学ぶことです。", conversation="ja")
    talk.ask("什么是机器学习？", "是人工智能的一部分。", conversation="zh")
    talk.ask("기계 학습이란?", "데이터로 배우는 것입니다.", conversation="ko")
    for words, ids in {
        "機械": ["ja"],
        "械学習": ["ja"],
        "学": ["zh", "ja"],
        "学习": ["zh"],
        "智能的": ["zh"],
        "학습": ["ko"],
        "데이터 배우는": ["ko"],
        "機習": [],
    }.items():
        assert found(conversations, words) == ids, words


@pytest.mark.parametrize(
    "words", ['"', 'a" OR "b', "leaf*", "-leaf", "leaf | root", "' & 'x", "a:*"]
)
def test_no_sign_of_a_query_language_means_anything(
    talk: Talk, conversations: Conversations, words: str
) -> None:
    talk.ask("Nothing of it", "None.")
    assert found(conversations, words) == []


def test_only_a_persons_own_conversations_are_found(
    talk: Talk, conversations: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "person_key", lambda _: "samekey1")  # which two people may have
    talk.ask("Secret leaf", user="ann", conversation="c1")
    talk.ask("Secret root", user="bob", conversation="c2")
    assert found(conversations, "secret", "ann") == ["c1"]
    assert found(conversations, "secret", "bob") == ["c2"]
    assert found(conversations, "secret", "eve") == []


def test_an_entry_for_each_conversation_newest_first_and_no_more_than_asked_for(
    talk: Talk, conversations: Conversations
) -> None:
    answer = None
    for number in range(30):  # one conversation with many newer hits than the others
        talk.ask(f"Leaf {number}", "A leaf.", conversation=f"c{number:02}")
    for _ in range(30):
        answer = talk.ask("Leaf again", "A leaf.", conversation="long", parent=answer)
    newest = ["long", *(f"c{number:02}" for number in range(29, -1, -1))]
    assert [e.summary.id for e in conversations.search("ann", "leaf", limit=2)] == newest[:2]
    assert found(conversations, "leaf") == newest


def test_a_given_title_is_found_until_there_is_another(
    talk: Talk, conversations: Conversations
) -> None:
    talk.ask(conversation="c1")
    conversations.rename("c1", "ann", "Botany  for\nbeginners")
    (entry,) = conversations.search("ann", "botany")
    assert (entry.summary.title, entry.excerpt) == ("Botany for beginners",) * 2
    conversations.rename("c1", "ann", "Plants")
    assert found(conversations, "botany") == []
    assert found(conversations, "plants") == ["c1"]


def test_a_conversation_is_found_unless_it_is_deleted(
    talk: Talk, conversations: Conversations
) -> None:
    talk.ask(conversation="c1")
    conversations.delete("c1", "ann")
    assert found(conversations, "leaf") == []
    conversations.restore("c1", "ann")
    assert found(conversations, "leaf") == ["c1"]


def test_an_answer_is_found_once_it_has_ended(
    store: FeedbackStore, talk: Talk, conversations: Conversations
) -> None:
    answer_id = talk.ask("Q", "Early words.")
    streaming = talk.begin(store.turn_of(answer_id, "ann").id)
    store.save_partial(streaming, "A partial sentence")
    assert found(conversations, "partial") == []
    store.abort_unfinished()
    assert found(conversations, "partial sentence") == ["c1"]
    store.reopen_answer(streaming, "ann")
    talk.finish(streaming, "A whole sentence")
    assert found(conversations, "partial") == []
    assert found(conversations, "whole sentence") == ["c1"]


def test_what_an_api_caller_asks_is_in_no_list_and_not_found(
    store: FeedbackStore, talk: Talk, conversations: Conversations, database: Database
) -> None:
    turn = store.add_turn(
        user_id="api", question="A leaf?", template=PLAIN, conversation_id="c9", listed=False
    )
    talk.finish(talk.begin(turn.id), "A leaf.")
    assert (found(conversations, "leaf", "api"), conversations.page("api")) == ([], [])
    with database.read() as connection:
        assert connection.execute(select(t.search_documents)).all() == []


def test_a_text_with_more_terms_than_fit_is_found_by_its_beginning(
    talk: Talk, conversations: Conversations
) -> None:
    """A tsvector holds 1 MiB: 30,000 words of 64 characters are twice that."""
    words = " ".join(f"{number:064}" for number in range(30_000))
    talk.ask("Count.", f"begin {words} end")
    assert found(conversations, "begin ") == ["c1"]
    assert found(conversations, "end ") == []


def test_the_longest_text_in_a_script_without_spaces_is_stored(
    talk: Talk, conversations: Conversations
) -> None:
    han = "".join(chr(0x4E00 + (7 * number * number) % 20_000) for number in range(100_000))
    talk.ask(han, "A")
    assert found(conversations, han[:50]) == ["c1"]


# Erased words


def test_words_that_were_deleted_are_in_no_file_after_a_vacuum(
    store: FeedbackStore, talk: Talk, database: Database, tmp_path: Path
) -> None:
    """So many that FTS5 finds its pages by some of them; PostgreSQL's files are elsewhere."""
    for number in range(60):
        words = " ".join(f"canary{number * 100 + each}" for each in range(100))
        talk.ask(words, f"other{number}", conversation=f"c{number}")
    with database.write() as connection:
        for table in (t.search_documents, t.answers, t.turns, t.conversations):
            connection.execute(table.delete())
    talk.ask("What is left?", "This.", conversation="left")
    database.vacuum()
    assert files_with(tmp_path, ["canary"]) == []
    assert [e.summary.id for e in Conversations(database).search("ann", "left")] == ["left"]


# Excerpts


@pytest.mark.parametrize(
    ("said", "words", "expected"),
    [
        ("A leaf.", "leaf", "A leaf."),
        ("  A\n\nleaf. ", "leaf", "A leaf."),
        ("start art", "art ", "start art"),
        ("no such word", "leaf", "no such word"),
        # 40 characters before the hit begin within "one": the excerpt begins at the next word
        ("one " * 30 + "leaf", "leaf", "…" + "one " * 9 + "leaf"),
        ("leaf " + "x" * 200, "leaf", "leaf " + "x" * 154 + "…"),
        ("字" * 100 + "葉" + "字" * 200, "葉", "…" + "字" * 40 + "葉" + "字" * 117 + "…"),
    ],
)
def test_the_text_around_the_first_hit(said: str, words: str, expected: str) -> None:
    query = parse_query(words)
    assert query is not None
    assert excerpt(said, query) == expected
    assert len(expected) <= 160
