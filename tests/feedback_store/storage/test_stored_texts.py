"""Any text is kept faithfully, or refused for a reason."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidText
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import Conversations
from tests.feedback_store.storage.contents import everything, only_evidence

LIMIT_CHARS = 400_000


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
