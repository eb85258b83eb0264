"""What the chat page looks like on a phone, in Chinese and without a mouse; and what it fetches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from app.texts import catalogue
from engine.prompts.modes import make_template
from feedback_store.storage.store import FeedbackStore
from tests.app.chat_page import ChatPage
from tests.app.conftest import NEEDS_CHROMIUM, Played
from tests.app.stored import rows, wait_until_said
from tests.support.waiting import wait_until

pytestmark = NEEDS_CHROMIUM
Newcomer = Callable[..., ChatPage]
PHONE = {"width": 390, "height": 844}


@pytest.fixture
def chat(newcomer: Newcomer, played: Played) -> Iterator[ChatPage]:
    """The chat page of a new person; the browser has nothing to complain of."""
    page = newcomer(played.url)
    yield page
    assert page.complaints == []


def test_every_request_goes_to_the_pages_own_server(chat: ChatPage, played: Played) -> None:
    played.engine.says = "![a cat](http://elsewhere.test/cat.png) and $x$ and `code`."
    chat.open()
    chat.ask("http://elsewhere.test/?")
    chat.page.click("#settings")
    chat.page.goto(f"{chat.url}/?view=feedback")
    expect(chat.page.locator("#my-decisions")).to_be_visible()
    chat.page.goto(f"{chat.url}/console/")
    expect(chat.page.get_by_role("tab").first).to_be_visible(timeout=30_000)
    assert chat.fetched != []
    assert [url for url in chat.fetched if not url.startswith((chat.url, "data:"))] == []


@pytest.mark.parametrize("path", ["/", "/console/"])
def test_the_clock_of_a_status_that_is_gone_takes_no_frames(chat: ChatPage, path: str) -> None:
    """Gradio's own goes on for ever, sixty times a second, on each page that has been loaded."""
    chat.page.add_init_script("""
        window.frames_of_clocks = 0;
        const native = window.requestAnimationFrame.bind(window);
        window.requestAnimationFrame = (draw) => {
            if (new Error().stack.includes("/statustracker-")) window.frames_of_clocks += 1;
            return native(draw);
        };
    """)
    chat.page.goto(f"{chat.url}{path}")
    chat.page.wait_for_selector("gradio-app .contain", state="attached")
    chat.page.wait_for_timeout(500)
    assert chat.page.evaluate("window.frames_of_clocks") == 0
    assert any("/statustracker-" in url for url in chat.fetched)  # the file still has this name


class TestPhone:
    @pytest.fixture
    def phone(self, newcomer: Newcomer, played: Played) -> ChatPage:
        return newcomer(played.url, viewport=PHONE, has_touch=True, is_mobile=True)

    def test_the_question_is_in_view_and_nothing_is_wider_than_the_screen(
        self, phone: ChatPage, played: Played
    ) -> None:
        table = "| a | b |\n|---|---|\n" + "| wide word | wide word |\n" * 5
        played.engine.says = f"```\n{'x' * 300}\n```\n\n{'y' * 300}\n\n{table}"
        for _ in range(2):
            phone.ask("What is the sea?")
            assert in_view(phone.page, "#question")
            assert in_view(phone.page, "#send")
        wide = phone.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE["width"]
        assert phone.page.evaluate("document.getElementById('scroller').scrollWidth") <= wide

    def test_conversations_are_in_a_drawer(self, phone: ChatPage) -> None:
        phone.ask("One?")
        expect(phone.page.locator("#side")).to_be_hidden()
        phone.page.tap("#open-side")
        expect(phone.page.locator("#side")).to_be_visible()
        phone.page.tap("#new-chat")
        expect(phone.turns).to_have_count(0)
        expect(phone.page.locator("#side")).to_be_hidden()
        phone.page.tap("#open-side")
        phone.conversations.filter(has_text="One?").tap()
        expect(phone.questions).to_have_text(["One?"])
        expect(phone.page.locator("#side")).to_be_hidden()

    def test_a_finger_reaches_what_can_be_done_with_an_answer(
        self, phone: ChatPage, played: Played
    ) -> None:
        phone.ask("One?")
        phone.ask("Two?")
        phone.does("thumb_up", 0).tap()
        wait_until_said(played.service, phone.answer_id(0), "vote")


def in_view(page: Page, selector: str) -> bool:
    box = page.locator(selector).bounding_box()
    size = page.viewport_size
    assert box is not None
    assert size is not None
    right, bottom = box["x"] + box["width"], box["y"] + box["height"]
    return box["x"] >= 0 and box["y"] >= 0 and right <= size["width"] and bottom <= size["height"]


class TestChinese:
    def test_a_chinese_browser_gets_a_page_without_an_english_word(
        self, newcomer: Newcomer, played: Played
    ) -> None:
        chat = newcomer(played.url, locale="zh-CN")
        shown = chat.page.locator("#burnish").inner_text()
        names = chat.page.evaluate(
            "() => [...document.querySelectorAll('#burnish [aria-label], #burnish [title],"
            " #burnish [placeholder]')].flatMap(e => [e.ariaLabel, e.title, e.placeholder])"
            ".filter(Boolean).join('\\n')"
        )
        words = set(re.findall(r"[A-Za-z]{2,}", f"{shown}\n{names}"))
        assert words <= {"Burnish", "Python", "Top"}  # names, and a figure that is called so
        assert "有什么可以帮您？" in shown
        assert chat.page.evaluate("document.getElementById('burnish').lang") == "zh"

    def test_refusals_are_chinese_too(self, newcomer: Newcomer, played: Played) -> None:
        chat = newcomer(played.url, locale="zh-CN")
        chat.send("水" * 30_000)
        expect(chat.notice).to_be_visible()
        assert not re.search(r"[A-Za-z]{2,}", chat.notice.inner_text())
        assert "20000" in chat.notice.inner_text()

    def test_notes_and_failures_under_an_answer_are_chinese_too(
        self, newcomer: Newcomer, played: Played
    ) -> None:
        chat = newcomer(played.url, locale="zh-CN")
        played.engine.stand_still()
        chat.send("水")
        wait_until(lambda: played.engine.running == 1)
        played.engine.break_off("the engine stopped")
        played.engine.go_on()
        chat.wait_for_answer()
        expect(chat.note()).to_contain_text("该回答失败")
        assert not re.search(r"[A-Za-z]{2,}", chat.note().inner_text())

    def test_the_language_can_be_chosen(self, chat: ChatPage) -> None:
        chat.page.click("#settings")
        with chat.page.expect_navigation():
            chat.page.select_option("#language", "zh")
        chat.wait_until_ready()
        expect(chat.button).to_have_attribute("aria-label", catalogue("zh", "chat")["send"])


class TestKeyboard:
    def test_a_question_is_asked_and_judged_without_a_mouse(
        self, chat: ChatPage, played: Played
    ) -> None:
        assert chat.focused() == "question"
        chat.page.keyboard.type("One?")
        chat.page.keyboard.press("Shift+Enter")
        chat.page.keyboard.type("Two?")
        chat.tab_to("send")
        chat.page.keyboard.press("Enter")
        chat.wait_for_answer()
        expect(chat.questions).to_have_text("One?\nTwo?", use_inner_text=True)
        chat.tab_to("thumb_down")
        expect(chat.page.locator(".bar")).to_have_css("opacity", "1")
        chat.page.keyboard.press("Enter")
        chat.expect_thumb("down", lit=True)
        assert chat.focused() == "thumb_down"
        for _ in range(60):
            if chat.chip("too_long").evaluate("e => e === document.activeElement"):
                break
            chat.page.keyboard.press("Tab")
        chat.page.keyboard.press("Space")
        expect(chat.chip("too_long")).to_have_attribute("aria-pressed", "true")
        wait_until_said(played.service, chat.answer_id(), "vote", "vote")

    def test_what_has_the_keyboard_is_seen_and_every_button_has_a_name(
        self, chat: ChatPage
    ) -> None:
        chat.ask("One?")
        nameless = chat.page.evaluate(
            "() => [...document.querySelectorAll('#burnish button, #burnish input,"
            " #burnish select, #burnish textarea')].filter(e => !(e.ariaLabel ||"
            " e.textContent.trim() || e.labels?.[0]?.textContent.trim())).map(e => e.outerHTML)"
        )
        assert nameless == []


class TestLongConversations:
    QUESTIONS = 62

    @pytest.fixture
    def long(self, chat: ChatPage, played: Played) -> ChatPage:
        """A conversation whose questions are 0? to 61?, opened."""
        chat.ask("0?")
        store: FeedbackStore = played.service.workspace.store
        (first,) = rows(
            played.service, "SELECT user_id FROM turns WHERE conversation_id = ?", chat.conversation
        )
        parent = chat.answer_id()
        for number in range(1, self.QUESTIONS):
            turn = store.add_turn(
                user_id=first["user_id"],
                question=f"{number}?",
                conversation_id=chat.conversation,
                template=make_template("plain", ()),
                parent_answer_id=parent,
            )
            parent = store.begin_answer(
                turn.id, base_digest="base", adapter_digest=None, sampling={}, seed=0
            )
            store.finish_answer(parent, status="done", text=f"{number}.", complete=True)
        return chat.reload()

    def shows(self, chat: ChatPage, first: int, last: int) -> None:
        expect(chat.questions).to_have_text([f"{n}?" for n in range(first, last + 1)])

    def test_earlier_questions_come_when_they_are_asked_for(self, long: ChatPage) -> None:
        earlier = long.page.locator(".earlier")
        self.shows(long, 32, 61)
        long.ask("62?")
        long.improve("62.")
        self.shows(long, 32, 62)
        earlier.click()
        self.shows(long, 2, 62)
        earlier.click()
        self.shows(long, 0, 62)
        expect(earlier).to_have_count(0)

    def test_the_first_one_that_is_shown_is_edited_in_its_place(self, long: ChatPage) -> None:
        long.edit("32, otherwise?", turn=0)
        expect(long.questions).to_have_text(["32, otherwise?"])
        long.page.locator(".earlier").click()
        expect(long.questions.last).to_have_text("32, otherwise?")
        expect(long.questions.first).to_have_text("2?")


def test_whoever_closes_a_dialogue_goes_on_typing_where_they_were(chat: ChatPage) -> None:
    chat.question_box.click()
    chat.page.keyboard.type("/")
    chat.page.locator("#slash [role=option]").last.click()  # "Save as prompt…"
    expect(chat.page.locator("dialog[open]")).to_be_visible()
    chat.page.keyboard.press("Escape")
    expect(chat.page.locator("dialog")).to_have_count(0)
    chat.page.keyboard.type("What is the sea?")
    expect(chat.question_box).to_have_value("What is the sea?")
