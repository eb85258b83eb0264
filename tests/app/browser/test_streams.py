"""Answers that are being written, in a real Chromium: stopped, left, joined, cut off, lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect

from tests.app.browser.cable import Cable, cable_to
from tests.app.chat_page import PATIENCE_MS, ChatPage
from tests.app.conftest import NEEDS_CHROMIUM, Played
from tests.app.stored import answer, said_of
from tests.support.waiting import wait_until

pytestmark = NEEDS_CHROMIUM
Newcomer = Callable[..., ChatPage]
FROM_THE_FIRST_WORD = re.compile(r"^w0 ")


@pytest.fixture
def chat(newcomer: Newcomer, played: Played) -> Iterator[ChatPage]:
    """The chat page of a new person; the browser has nothing to complain of."""
    page = newcomer(played.url)
    yield page
    assert page.complaints == []


@pytest.fixture
def cable(played: Played) -> Iterator[Cable]:
    """What connects a page with the server."""
    with cable_to(played.url) as cable:
        yield cable


def status(played: Played, chat: ChatPage) -> str:
    return str(answer(played.service, chat.answer_id())["status"])


@pytest.mark.usefixtures("long_answers")
class TestStopping:
    def test_the_button_stops_a_long_answer_and_what_was_written_stays(
        self, chat: ChatPage, played: Played
    ) -> None:
        chat.send("Tell me everything.")
        chat.wait_for_words("w5 ")
        chat.stop()
        expect(chat.note()).to_contain_text("Stopped.")
        expect(chat.answers).to_contain_text(FROM_THE_FIRST_WORD)
        assert status(played, chat) == "stopped"
        chat.ask_and_stop("And more.")
        expect(chat.turns).to_have_count(2)

    def test_esc_stops_it_and_not_where_it_closes_something(
        self, chat: ChatPage, played: Played
    ) -> None:
        chat.send("Tell me everything.")
        chat.wait_for_words()
        chat.page.click("#settings")
        expect(chat.page.locator("dialog[open]")).to_be_visible()
        chat.page.keyboard.press("Escape")
        expect(chat.page.locator("dialog[open]")).to_have_count(0)
        chat.page.wait_for_timeout(300)
        assert status(played, chat) == "streaming"
        chat.page.keyboard.press("Escape")
        chat.wait_for_answer()
        assert status(played, chat) == "stopped"

    def test_a_stopped_answer_is_continued_where_it_ended(
        self, chat: ChatPage, played: Played
    ) -> None:
        chat.send("Tell me everything.")
        chat.wait_for_words("w3 ")
        chat.stop()
        first = chat.answer_text()
        chat.does("continue").click()
        chat.wait_for_words(re.compile(re.escape(first) + r" w0 w1 w2 "))
        chat.stop()
        assert played.engine.requests[-1].prefill.strip() == first
        expect(chat.arrows()).to_have_count(0)  # it is the same answer

    def test_stop_before_the_first_word_leaves_nothing_running(
        self, chat: ChatPage, played: Played
    ) -> None:
        played.engine.stand_still()
        chat.send("Tell me everything.")
        chat.stop()
        assert status(played, chat) == "stopped"
        expect(chat.does("regenerate")).to_be_visible()

    def test_enter_meanwhile_says_something_and_keeps_what_was_typed(self, chat: ChatPage) -> None:
        chat.send("Tell me everything.")
        chat.question_box.press_sequentially("And then?")
        chat.wait_for_words()
        chat.question_box.press("Enter")
        expect(chat.notice).to_contain_text("still being written")
        expect(chat.question_box).to_have_value("And then?")
        expect(chat.turns).to_have_count(1)
        chat.notice.get_by_text("Stop").click()
        chat.wait_for_answer()
        chat.question_box.press("Enter")
        expect(chat.turns).to_have_count(2)
        chat.stop()


@pytest.mark.usefixtures("long_answers")
class TestLeaving:
    def test_an_answer_goes_on_while_its_page_is_loaded_again_which_joins_it(
        self, chat: ChatPage, played: Played
    ) -> None:
        chat.send("Tell me everything.")
        chat.wait_for_words("w5 ")
        chat.reload()
        chat.wait_for_words("w5 ")
        chat.wait_for_words("w60 ")
        expect(chat.answers).to_contain_text(FROM_THE_FIRST_WORD)
        assert status(played, chat) == "streaming"
        chat.stop()
        expect(chat.note()).to_contain_text("Stopped.")
        assert status(played, chat) == "stopped"

    def test_another_conversation_meanwhile_is_another_and_the_way_back_joins_the_first(
        self, chat: ChatPage, played: Played
    ) -> None:
        chat.send("Tell me everything.")
        chat.wait_for_words()
        running = chat.answer_id()
        chat.new_chat()
        expect(chat.button).to_have_attribute("data-state", "send")
        chat.page.keyboard.press("Escape")
        chat.ask_and_stop("Something else?")
        expect(chat.turns).to_have_count(1)
        assert answer(played.service, running)["status"] == "streaming"
        chat.conversations.filter(has_text="Tell me everything.").click()
        expect(chat.questions).to_have_text(["Tell me everything."])
        chat.wait_for_words("w100 ")
        chat.stop()
        assert answer(played.service, running)["status"] == "stopped"

    def test_many_answers_that_were_left_leave_the_page_its_connections(
        self, chat: ChatPage
    ) -> None:
        """A browser has six for a server."""
        for number in range(7):
            chat.send(f"Tell me everything {number}.")
            chat.wait_for_words()
            chat.new_chat()
        chat.page.click("#settings")
        expect(chat.page.locator("#consent")).to_be_visible()

    def test_two_tabs_follow_one_answer(self, chat: ChatPage) -> None:
        chat.send("Tell me everything.")
        chat.wait_for_words()
        other = ChatPage(chat.page.context.new_page(), chat.url).open(chat.conversation)
        other.wait_for_words("w30 ")
        other.stop()
        chat.wait_for_answer()
        assert chat.answer_text() == other.answer_text()


@pytest.mark.usefixtures("long_answers")
class TestScrolling:
    def test_who_scrolls_up_stays_there_and_a_button_leads_back(
        self, chat: ChatPage, played: Played
    ) -> None:
        played.engine.says = "word " * 3_000
        to_end = chat.page.locator("#to-end")
        chat.send("Tell me everything.")
        wait_until(lambda: chat.scrolled() > 400)
        expect(to_end).to_be_hidden()
        chat.page.mouse.move(400, 300)
        chat.page.mouse.wheel(0, -300)
        expect(to_end).to_be_visible()
        here = chat.scrolled()
        chat.page.wait_for_timeout(1_000)
        assert chat.scrolled() == here
        to_end.click()
        expect(to_end).to_be_hidden()
        wait_until(lambda: chat.scrolled() > here + 400)
        chat.stop()


class TestEnds:
    def test_an_answer_that_is_cut_at_its_limit_says_so_and_goes_on(
        self, chat: ChatPage, played: Played
    ) -> None:
        chat.ask("Tell me everything.")
        expect(chat.note()).to_contain_text("Cut off at its longest allowed length.")
        whole = chat.answer_text()
        chat.does("continue").click()
        chat.wait_for_answer()
        assert chat.answer_text().startswith(f"{whole} w0 w1")
        played.engine.says = "Short."
        chat.ask("Tell me less.")
        expect(chat.note()).to_be_hidden()

    def test_what_was_left_out_of_the_prompt_is_said_under_the_answer(
        self, chat: ChatPage, played: Played
    ) -> None:
        played.engine.says = "Yes."
        chat.ask("water " * 3_000)
        chat.ask("earth " * 3_000)
        expect(chat.note()).to_contain_text("no longer fits and was left out")

    def test_a_failure_is_said_and_the_answer_can_be_asked_for_again(
        self, chat: ChatPage, played: Played
    ) -> None:
        played.engine.stand_still()
        chat.send("Tell me everything.")
        wait_until(lambda: played.engine.running == 1)
        played.engine.break_off("the engine stopped")
        played.engine.go_on()
        chat.wait_for_answer()
        expect(chat.note()).to_contain_text("the engine stopped")
        chat.again()
        expect(chat.answers).to_contain_text("w63")


class TestRefusals:
    """The browser complains of each status; the page says it in words."""

    def test_a_question_that_finds_no_room_is_asked_again(
        self, newcomer: Newcomer, played: Played, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chat = newcomer(played.url)
        with monkeypatch.context() as full:
            full.setattr(played.engine, "_max_queue", -8)
            chat.send("Is there room?")
            expect(chat.notice).to_contain_text("try again later")
            expect(chat.question_box).to_have_value("Is there room?")
            expect(chat.turns).to_have_count(0)
        expect(chat.turns).to_have_count(1, timeout=PATIENCE_MS)
        chat.wait_for_answer()
        expect(chat.question_box).to_have_value("")

    def test_another_answer_that_finds_no_room_leaves_the_first_where_it_was(
        self, newcomer: Newcomer, played: Played, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chat = newcomer(played.url)
        chat.ask("What is the sea?")
        said = chat.answer_text()
        monkeypatch.setattr(played.engine, "_max_queue", -8)
        for what in ("regenerate", "continue", "compare"):
            chat.does(what).click()
            expect(chat.notice).to_contain_text("try again later")
            chat.wait_for_answer()
            assert chat.answer_text() == said
            expect(chat.does("thumb_up")).to_be_visible()
            chat.notice.get_by_label("Close").click()


class TestLostConnections:
    """The browser complains of each request that fails; the page says it in words."""

    def test_while_the_server_is_away_a_question_is_kept_and_asked_again(
        self, newcomer: Newcomer, cable: Cable
    ) -> None:
        chat = newcomer(cable.url)
        cable.pull()
        chat.send("Are you there?")
        expect(chat.notice).to_contain_text("cannot be reached; your question is kept")
        expect(chat.question_box).to_have_value("Are you there?")
        cable.plug_in()
        expect(chat.turns).to_have_count(1, timeout=PATIENCE_MS)
        chat.wait_for_answer()
        expect(chat.questions).to_have_text(["Are you there?"])
        expect(chat.question_box).to_have_value("")
        expect(chat.notice).to_be_hidden()

    def test_who_cancels_is_not_asked_for_again(self, newcomer: Newcomer, cable: Cable) -> None:
        chat = newcomer(cable.url)
        cable.pull()
        chat.send("Are you there?")
        chat.notice.get_by_text("Cancel").click()
        cable.plug_in()
        chat.page.wait_for_timeout(3_500)
        expect(chat.turns).to_have_count(0)
        expect(chat.question_box).to_have_value("Are you there?")

    @pytest.mark.usefixtures("long_answers")
    def test_a_stream_that_is_cut_is_joined_again(self, newcomer: Newcomer, cable: Cable) -> None:
        chat = newcomer(cable.url)
        chat.send("Tell me everything.")
        chat.wait_for_words("w5 ")
        cable.pull()
        chat.page.wait_for_timeout(300)
        cable.plug_in()
        chat.wait_for_words("w150 ")
        expect(chat.answers).to_contain_text(FROM_THE_FIRST_WORD)
        chat.stop()

    def test_an_answer_that_ended_while_the_connection_was_lost_is_shown_whole(
        self, newcomer: Newcomer, cable: Cable, played: Played
    ) -> None:
        chat = newcomer(cable.url)
        chat.send("Tell me everything.")
        chat.wait_for_words()
        cable.pull()
        wait_until(lambda: status(played, chat) == "done")
        cable.plug_in()
        chat.wait_for_answer()
        expect(chat.answers).to_contain_text("w63")
        expect(chat.does("thumb_up")).to_be_visible()

    def test_a_vote_that_does_not_arrive_is_not_shown(
        self, newcomer: Newcomer, cable: Cable, played: Played
    ) -> None:
        chat = newcomer(cable.url)
        chat.ask("One?")
        cable.pull()
        chat.thumb("up")
        expect(chat.notice).to_contain_text("cannot be reached")
        chat.expect_thumb("up", lit=False)
        assert said_of(played.service, chat.answer_id()) == []
