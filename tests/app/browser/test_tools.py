"""Tools on the chat page: switched on by a person, shown while they run and afterwards, as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect

from engine.prompts.calls.formats import HERMES
from engine.tools import WrittenCall
from tests.app.browser.test_axe import serious
from tests.app.chat_page import ChatPage
from tests.app.conftest import NEEDS_CHROMIUM, Played
from tests.app.tools.test_tools_in_chat import switch_on

pytestmark = NEEDS_CHROMIUM
CALL = HERMES.write([WrittenCall("calculator", '{"expression": "6*7"}')])
BAD_CALL = HERMES.write(
    [WrittenCall("calculator", '{"expression": "<img src=x onerror=alert(1)>"}')]
)


@pytest.fixture(autouse=True)
def _two_tools_are_on(played: Played, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    switch_on(played.service.workspace.toolbox, monkeypatch, "calculator", "clock")
    yield
    played.engine.answers = iter(())


@pytest.fixture
def chat(newcomer: Callable[..., ChatPage], played: Played) -> Iterator[ChatPage]:
    """The chat page of a new person; the browser has nothing to complain of."""
    page = newcomer(played.url)
    yield page
    assert page.complaints == []


def allow(chat: ChatPage, name: str) -> None:
    chat.page.click("#tools")
    box = chat.page.locator(f"#tools-box [data-tool={name}]")
    with chat.page.expect_response("**/chat/tools/*"):
        box.check()
    chat.page.keyboard.press("Escape")


def test_a_tool_is_switched_on_called_and_shown(chat: ChatPage, played: Played) -> None:
    page = chat.page
    page.click("#tools")
    expect(page.locator("#tools-box li")).to_have_count(2)
    expect(page.locator("#tools-box")).to_contain_text("Computes an expression")
    assert serious(page) == []
    page.keyboard.press("Escape")
    allow(chat, "calculator")
    played.engine.answers = iter([CALL, "It is 42."])
    chat.ask("What is 6 times 7?")
    call = page.locator(".call")
    expect(call).to_have_count(1)
    expect(call.locator("summary")).to_have_text("Calculator6*7")
    expect(call).to_have_attribute("data-status", "done")
    expect(call.locator("pre").last).to_be_hidden()  # folded
    expect(page.locator(".answer")).to_have_text("It is 42.")
    call.locator("summary").click()
    expect(call.locator("pre").last).to_have_text("42")
    assert serious(page) == []
    chat.reload()
    expect(page.locator(".call summary")).to_have_text("Calculator6*7")
    page.click("#tools")
    expect(page.locator("#tools-box [data-tool=calculator]")).to_be_checked()
    expect(page.locator("#tools-box [data-tool=clock]")).not_to_be_checked()


def test_what_a_tool_says_is_text_and_a_failure_is_named(chat: ChatPage, played: Played) -> None:
    allow(chat, "calculator")
    played.engine.answers = iter([BAD_CALL, "It does not work."])
    chat.ask("What is <img>?")
    call = chat.page.locator(".call")
    expect(call.locator("summary")).to_contain_text("Calculator failed")
    call.locator("summary").click()
    expect(call.locator("pre").first).to_contain_text("<img src=x onerror=alert(1)>")
    expect(call.locator("img")).to_have_count(0)


def test_without_tools_there_is_no_switch(
    newcomer: Callable[..., ChatPage], played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(played.service.workspace.toolbox, "_built_in", ())
    expect(newcomer(played.url).page.locator("#tools")).to_be_hidden()
