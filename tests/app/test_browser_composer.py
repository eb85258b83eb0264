"""The composer's choices, in a browser: how an answer is made, system prompts, saved prompts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, expect

from tests.app.chat_page import ChatPage
from tests.app.conftest import NEEDS_CHROMIUM, Played

pytestmark = NEEDS_CHROMIUM
Newcomer = Callable[..., ChatPage]


@pytest.fixture
def chat(played: Played, newcomer: Newcomer) -> ChatPage:
    """A new person's empty page."""
    return newcomer(played.url)


def votes(chat: ChatPage) -> Locator:
    """What is said under the newest answer of the chains that led to it."""
    return chat.turns.last.locator(".votes")


class TestModes:
    def test_the_votes_of_several_chains_stand_under_the_answer_also_after_a_reload(
        self, chat: ChatPage, played: Played
    ) -> None:
        played.engine.says = "One and one.\nAnswer: two"
        expect(chat.page.locator("#samples")).to_be_hidden()
        chat.choose_mode("self-consistency")
        chat.page.click("#open-advanced")
        chat.page.fill("#samples", "3")
        begun = len(played.engine.requests)
        chat.ask("Add one and one.")
        assert len(played.engine.requests) - begun == 3
        expect(chat.answers).to_have_text("two")
        expect(votes(chat)).to_have_text("3 of 3 chains agree: two (3)")
        chat.reload()
        expect(votes(chat)).to_have_text("3 of 3 chains agree: two (3)")
        expect(chat.page.locator("#mode")).to_have_value("self-consistency")

    def test_while_chains_run_the_page_counts_those_that_have_ended_and_stop_ends_all(
        self, chat: ChatPage, played: Played
    ) -> None:
        played.engine.says = "So. " * 2_000
        chat.choose_mode("self-consistency")
        chat.send("Add one and one.")
        expect(chat.note()).to_have_text("0 of 5 chains of thought have ended.")
        expect(chat.page.locator(".thought summary")).to_have_text("Thinking…")
        chat.stop()
        expect(chat.note()).to_contain_text("Stopped.")
        expect(votes(chat)).to_be_hidden()
        assert played.engine.active_streams == 0

    def test_the_votes_of_a_temporary_chat_are_seen_too(
        self, chat: ChatPage, played: Played
    ) -> None:
        played.engine.says = "One and one.\nAnswer: two"
        chat.page.click("#temporary")
        chat.choose_mode("self-consistency")
        chat.ask("Add one and one.")
        expect(votes(chat)).to_have_text("5 of 5 chains agree: two (5)")

    def test_so_few_or_many_chains_are_not_sent(self, chat: ChatPage) -> None:
        chat.choose_mode("self-consistency")
        chat.page.click("#open-advanced")
        chat.page.fill("#samples", "17")
        chat.send("Add one and one.")
        expect(chat.turns).to_have_count(0)
        expect(chat.question_box).to_have_value("Add one and one.")
        chat.choose_mode("cot")  # asks for one chain, whatever stands there
        chat.page.press("#question", "Enter")
        expect(chat.turns).to_have_count(1)
