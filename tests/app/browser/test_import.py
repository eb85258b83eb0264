"""Conversations from another chat page come along, in a real Chromium."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import FilePayload, expect

from tests.app.chat_page import PATIENCE_MS, ChatPage
from tests.app.conftest import NEEDS_CHROMIUM, Played
from tests.app.web.exports import as_json, as_zip, conversation

pytestmark = NEEDS_CHROMIUM
ZIP = as_zip({"conversations.json": as_json(conversation())})
DROP = """([name, data]) => {
  const carried = new DataTransfer();
  carried.items.add(new File([Uint8Array.from(data)], name));
  for (const type of ["dragover", "drop"]) {
    document.body.dispatchEvent(
      new DragEvent(type, { dataTransfer: carried, bubbles: true, cancelable: true }),
    );
  }
}"""


@pytest.fixture
def chat(newcomer: Callable[..., ChatPage], played: Played) -> Iterator[ChatPage]:
    """The chat page of a new person."""
    yield newcomer(played.url)


def import_file(chat: ChatPage, data: bytes, name: str = "chatgpt.zip") -> None:
    """Choose a file in the settings."""
    chat.page.click("#settings")
    with chat.page.expect_file_chooser() as choosing:
        chat.page.click("#import")
    mime = "application/octet-stream"
    choosing.value.set_files(FilePayload(name=name, mimeType=mime, buffer=data))


def test_an_imported_conversation_is_listed_on_its_day_read_and_gone_on_with(
    chat: ChatPage, played: Played
) -> None:
    import_file(chat, ZIP)
    expect(chat.toast).to_have_text(re.compile(r"Imported 1 conversation\."), timeout=PATIENCE_MS)
    expect(chat.conversations).to_have_text("The sea")
    expect(chat.page.locator(".conversations h2")).to_have_text("September 2020")

    chat.conversations.first.click()
    expect(chat.answers).to_have_text("Salt water.")
    expect(chat.arrows()).to_contain_text("1/2")
    chat.arrows().get_by_role("button", name="Next").click()
    expect(chat.answers).to_have_text("Much water.")

    played.engine.says = "It is deep."
    chat.ask("And how deep?")
    expect(chat.answers).to_have_text(["Much water.", "It is deep."])
    expect(chat.page.locator(".conversations h2")).to_have_text("Today")
    assert chat.complaints == []


def test_a_dropped_file_is_imported_and_again_is_said_to_be_here(chat: ChatPage) -> None:
    for said in ("Imported 1 conversation.", "All conversations of this file are here already."):
        chat.page.evaluate(DROP, ["conversations.json", list(as_json(conversation()))])
        expect(chat.toast.filter(has_text=said)).to_be_visible(timeout=PATIENCE_MS)
    expect(chat.page.locator(".curtain")).to_be_hidden()
    expect(chat.conversations).to_have_count(1)


def test_a_file_that_is_no_export_gets_a_sentence_and_leaves_the_page_as_it_is(
    chat: ChatPage,
) -> None:
    import_file(chat, b"[]", "notes.json")
    expect(chat.notice).to_have_text(
        re.compile("this file cannot be imported: conversations.json holds no records")
    )
    expect(chat.page.locator("dialog")).to_have_count(0)
    expect(chat.toast).to_have_count(0)
    expect(chat.conversations).to_have_count(0)
