"""Documents in the chat: added with the paper-clip, asked, cited; a citation opens its passage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from app.grounding import ENGLISH
from tests.app.browser.test_axe import serious
from tests.app.chat_page import ChatPage
from tests.app.conftest import NEEDS_CHROMIUM, Played

pytestmark = NEEDS_CHROMIUM
LEAVE = "# Leave\n\nEmployees have thirty days of vacation a year.\n"
SAID = "Employees have thirty days of vacation [1]. Lunch is free for them on every Friday [1]."


@pytest.fixture
def chat(newcomer: Callable[..., ChatPage], played: Played) -> Iterator[ChatPage]:
    """The chat page of a new person; the browser has nothing to complain of."""
    page = newcomer(played.url)
    played.engine.says = SAID
    yield page
    assert page.complaints == []


def add(chat: ChatPage, tmp_path: Path, name: str, text: str) -> None:
    """Add a file by the paper-clip."""
    file = tmp_path / name
    file.write_text(text)
    chat.page.click("#documents")
    chat.page.set_input_files("#document-files", file)
    expect(chat.page.locator(".document-name", has_text=name)).to_be_attached(timeout=30_000)


def test_a_file_is_added_asked_and_cited(chat: ChatPage, tmp_path: Path) -> None:
    page = chat.page
    add(chat, tmp_path, "leave.md", LEAVE)
    expect(page.locator("#documents-said")).to_contain_text("ask a question")
    assert serious(page) == []
    page.keyboard.press("Escape")
    expect(page.locator(".of-documents")).to_contain_text("My documents")
    chat.ask("How many vacation days do employees have?")
    source = page.locator(".source")
    expect(source).to_have_text("1 leave.md · Leave")
    expect(page.locator(".answer .cite")).to_have_count(2)
    expect(page.locator(".answer .doubt")).to_have_count(1)
    page.locator(".answer .cite").first.click()
    expect(page.locator("#passage")).to_contain_text("thirty days of vacation a year")
    assert serious(page) == []
    page.keyboard.press("Escape")
    chat.reload()  # the answer, its passages and the choice are there again
    expect(page.locator(".answer .cite")).to_have_count(2)
    expect(page.locator(".of-documents")).to_contain_text("My documents")


def test_where_the_documents_say_nothing_the_answer_says_so(chat: ChatPage, tmp_path: Path) -> None:
    add(chat, tmp_path, "leave.md", LEAVE)
    chat.page.keyboard.press("Escape")
    chat.ask("Who won the football cup?")
    expect(chat.page.locator(".answer")).to_have_text(ENGLISH.not_there)
    expect(chat.page.locator(".source")).to_have_count(0)


def test_without_documents_answers_are_as_ever(chat: ChatPage, tmp_path: Path) -> None:
    page = chat.page
    add(chat, tmp_path, "leave.md", LEAVE)
    page.keyboard.press("Escape")
    page.click("[data-does='no-documents']")
    expect(page.locator(".of-documents")).to_be_hidden()
    chat.ask("How many vacation days do employees have?")
    expect(page.locator(".answer")).to_contain_text("[1].")
    expect(page.locator(".answer .cite")).to_have_count(0)


def test_a_document_is_removed_and_a_file_that_is_none_is_refused(
    chat: ChatPage, tmp_path: Path
) -> None:
    page = chat.page
    add(chat, tmp_path, "leave.md", LEAVE)
    bad = tmp_path / "bad.pdf"
    bad.write_text("words")
    page.set_input_files("#document-files", bad)
    expect(page.locator("#documents-said")).to_contain_text("bad.pdf cannot be read")
    assert ["400" in each for each in chat.complaints] == [True]  # what Chromium says of it
    chat.complaints.clear()
    page.locator(".collection summary").click()
    page.click("[data-does='remove-document']")
    expect(page.locator(".document-name")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(page.locator(".of-documents")).to_be_hidden()


def test_a_temporary_chat_cites_too(chat: ChatPage, tmp_path: Path) -> None:
    page = chat.page
    page.click("#temporary")
    add(chat, tmp_path, "leave.md", LEAVE)
    page.keyboard.press("Escape")
    chat.ask("How many vacation days do employees have?")
    expect(page.locator(".answer .cite")).to_have_count(2)
    expect(page.locator(".answer .doubt")).to_have_count(1)
