"""The chat page in a real Chromium: asking, feedback, conversations and branches."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect

from app.service import Service
from tests.app.chat_page import ChatPage
from tests.app.conftest import NEEDS_CHROMIUM, Played
from tests.app.stored import answer, rows, said_of, wait_until_said, wait_until_stored
from tests.helpers import make_bundle
from tests.support.waiting import wait_until

pytestmark = NEEDS_CHROMIUM
SCRIPT = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
Newcomer = Callable[..., ChatPage]


@pytest.fixture
def chat(newcomer: Newcomer, played: Played) -> Iterator[ChatPage]:
    """The chat page of a new person; the browser has nothing to complain of."""
    page = newcomer(played.url)
    yield page
    assert page.complaints == []


def test_ask_vote_improve_and_ask_again(newcomer: Newcomer, url: str, service: Service) -> None:
    """With a real model, from the first question to all that can be said of its answer."""
    chat = newcomer(url)
    chat.ask("Tell me about the sea.")
    wait_until_stored(service, turns=1, answers=1)
    chat.thumb("down")
    wait_until_stored(service, votes_down=1)
    chat.thumb("up")
    wait_until_stored(service, votes_up=1, votes_down=0)
    chat.improve("The sea is salty.")
    wait_until_stored(service, corrections=1)
    expect(chat.answers).to_contain_text("The sea is salty.")
    chat.again()
    counts = wait_until_stored(service, answers=2, regenerations=1)
    assert counts["turns"] == 1
    expect(chat.arrows()).to_have_text("2/2")
    assert chat.complaints == []


class TestAsking:
    def test_before_any_answer_nothing_that_can_be_pressed_fails(self, chat: ChatPage) -> None:
        expect(chat.page.locator(".bar")).to_have_count(0)
        chat.page.wait_for_load_state("networkidle")  # gradio's own scripts come after the page's
        chat.fetched.clear()
        chat.button.click()
        chat.question_box.press("Enter")
        chat.question_box.press("ArrowUp")
        chat.page.keyboard.press("Escape")
        chat.question_box.fill("  \n ")
        chat.button.click()
        expect(chat.turns).to_have_count(0)
        expect(chat.notice).to_be_hidden()
        assert chat.fetched == []

    def test_ones_own_words_appear_before_the_server_has_them(self, chat: ChatPage) -> None:
        chat.page.route("**/chat/questions", lambda _route: None)  # it never arrives
        chat.send("Is it\n  <b>there</b>?")
        expect(chat.questions).to_have_text("Is it\n  <b>there</b>?", use_inner_text=True)
        expect(chat.question_box).to_have_value("")

    def test_a_second_question_continues_the_conversation_and_new_chat_does_not(
        self, chat: ChatPage, played: Played
    ) -> None:
        chat.ask("One?")
        first = chat.conversation
        chat.ask("Two?")
        chat.new_chat()
        chat.ask("Three?")
        expect(chat.turns).to_have_count(1)
        query = (
            "SELECT question, parent_answer_id IS NOT NULL AS follows FROM turns"
            " WHERE conversation_id IN (?, ?) ORDER BY created_at"
        )
        found = rows(played.service, query, first, chat.conversation)
        assert [tuple(row.values()) for row in found] == [("One?", 0), ("Two?", 1), ("Three?", 0)]

    def test_a_thought_is_folded_apart_from_the_answer(
        self, chat: ChatPage, played: Played
    ) -> None:
        played.engine.says = "One and one.\nAnswer: two"
        chat.choose_mode("few-shot-cot")
        chat.ask("Add one and one.")
        expect(chat.page.locator(".thought summary")).to_contain_text("Thought")
        expect(chat.page.locator(".thought-text")).to_be_hidden()
        expect(chat.answers).to_have_text("two")
        chat.page.click(".thought summary")
        expect(chat.page.locator(".thought-text")).to_have_text("One and one.")
        stored = answer(played.service, chat.answer_id())
        assert (stored["thought"], stored["text"]) == ("One and one.", "two")

    def test_a_refused_question_says_why_and_comes_back_into_the_box(
        self, chat: ChatPage, played: Played
    ) -> None:
        question = "water " * 5_000
        chat.send(question)
        expect(chat.notice).to_contain_text("the message has 30000 characters")
        expect(chat.question_box).to_have_value(question)
        expect(chat.turns).to_have_count(0)
        expect(chat.conversations).to_have_count(0)
        chat.complaints.clear()  # the refusal's status
        chat.ask("What now?")
        expect(chat.notice).to_be_hidden()

    def test_a_temporary_chat_remembers_what_was_said_and_stores_nothing(
        self, chat: ChatPage, played: Played
    ) -> None:
        before = played.service.workspace.store.counts()
        played.engine.says = "It is salty."
        chat.page.click("#temporary")
        for question in ("What is the sea?", "Why?", "Since when?"):
            chat.ask(question)
        expect(chat.questions).to_have_text(["What is the sea?", "Why?", "Since when?"])
        asked = [message.content for message in played.engine.requests[-1].messages]
        assert asked[-5:] == [
            "What is the sea?",
            "It is salty.",
            "Why?",
            "It is salty.",
            "Since when?",
        ]
        assert played.service.workspace.store.counts() == before
        assert chat.conversation == ""
        chat.reload()
        expect(chat.turns).to_have_count(0)


class TestConversations:
    def test_a_reload_keeps_the_conversation_and_the_draft(self, chat: ChatPage) -> None:
        chat.question_box.fill("Not yet asked")
        chat.reload()
        expect(chat.question_box).to_have_value("Not yet asked")
        chat.ask("One?")
        chat.question_box.fill("And then")
        said = chat.answer_text()
        chat.reload()
        expect(chat.questions).to_have_text(["One?"])
        assert chat.answer_text() == said
        expect(chat.question_box).to_have_value("And then")
        chat.new_chat()
        expect(chat.question_box).to_have_value("")

    def test_the_address_names_the_conversation_and_back_and_forward_lead_to_it(
        self, chat: ChatPage
    ) -> None:
        chat.ask("One?")
        first = chat.conversation
        chat.new_chat()
        assert chat.conversation == ""
        chat.ask("Two?")
        second = chat.conversation
        assert first != second != ""
        chat.page.go_back()
        expect(chat.questions).to_have_text(["One?"])
        assert chat.conversation == first
        chat.page.go_forward()
        expect(chat.questions).to_have_text(["Two?"])
        chat.conversations.filter(has_text="One?").click()
        expect(chat.questions).to_have_text(["One?"])
        assert chat.conversation == first
        chat.open(second)
        expect(chat.questions).to_have_text(["Two?"])

    def test_two_tabs_show_the_same_after_a_reload(self, chat: ChatPage) -> None:
        chat.ask("One?")
        other = ChatPage(chat.page.context.new_page(), chat.url).open(chat.conversation)
        other.ask("Two?")
        other.thumb("up", turn=0)
        other.expect_thumb("up", lit=True, turn=0)
        chat.reload()
        expect(chat.questions).to_have_text(["One?", "Two?"])
        chat.expect_thumb("up", lit=True, turn=0)

    def test_a_conversation_deleted_in_another_tab_says_so_and_keeps_what_was_typed(
        self, chat: ChatPage
    ) -> None:
        chat.ask("What is the sea?")
        other = ChatPage(chat.page.context.new_page(), chat.url).open(chat.conversation)
        other.menu("Delete")
        expect(other.turns).to_have_count(0)
        chat.send("And the beach?")
        expect(chat.notice).to_contain_text("This conversation is not there any more.")
        expect(chat.question_box).to_have_value("And the beach?")
        expect(chat.conversations).to_have_count(0)
        chat.notice.get_by_role("button", name="New chat").click()
        expect(chat.turns).to_have_count(0)
        expect(chat.question_box).to_have_value("And the beach?")
        chat.button.click()
        expect(chat.questions).to_have_text(["And the beach?"])
        chat.complaints.clear()  # the browser names the request that was refused

    def test_a_conversation_of_somebody_else_is_not_there(
        self, chat: ChatPage, newcomer: Newcomer
    ) -> None:
        chat.ask("A secret?")
        stranger = newcomer(chat.url).open(chat.conversation)
        expect(stranger.notice).to_contain_text("not there any more")
        expect(stranger.turns).to_have_count(0)
        assert stranger.conversation == ""


class TestBranches:
    def test_an_edited_question_is_a_branch_and_arrows_step_between_the_two(
        self, chat: ChatPage
    ) -> None:
        for question in ("One?", "Two?", "Three?"):
            chat.ask(question)
        chat.edit("Zwei?", turn=1)
        expect(chat.questions).to_have_text(["One?", "Zwei?"])
        expect(chat.arrows(of="question")).to_have_text("2/2")
        chat.arrows(of="question").locator("[data-does=back]").click()
        expect(chat.questions).to_have_text(["One?", "Two?", "Three?"])
        chat.arrows(1, of="question").locator("[data-does=forth]").click()
        expect(chat.questions).to_have_text(["One?", "Zwei?"])
        chat.reload()
        expect(chat.questions).to_have_text(["One?", "Zwei?"])

    def test_the_first_question_can_be_edited_too_and_esc_leaves_it_as_it_was(
        self, chat: ChatPage
    ) -> None:
        chat.ask("One?")
        chat.question_box.press("ArrowUp")
        chat.page.keyboard.type(" Or two?")
        chat.page.keyboard.press("Escape")
        expect(chat.questions).to_have_text(["One?"])
        first = chat.conversation
        chat.edit("Eins?")
        expect(chat.questions).to_have_text(["Eins?"])
        expect(chat.arrows(of="question")).to_have_text("2/2")
        assert chat.conversation == first

    def test_another_answer_stands_beside_the_first_and_arrows_step_between_them(
        self, chat: ChatPage, played: Played
    ) -> None:
        for words in ("Salt.", "Water."):
            played.engine.says = words
            chat.again() if chat.turns.count() else chat.ask("What is the sea?")
        expect(chat.answers).to_have_text("Water.")
        chat.does("back").click()
        expect(chat.answers).to_have_text("Salt.")
        expect(chat.arrows()).to_have_text("1/2")
        played.engine.says = "And a tide."
        chat.ask("What more?")
        chat.does("forth", turn=0).click()
        expect(chat.answers).to_have_text(["Water."])
        chat.does("back").click()
        expect(chat.answers).to_have_text(["Salt.", "And a tide."])


class TestFeedback:
    def test_a_thumb_asks_why_and_can_be_taken_back(self, chat: ChatPage, played: Played) -> None:
        chat.ask("What is the sea?")
        chat.thumb("up")
        expect(chat.chip("right_facts")).to_be_visible()
        expect(chat.chip("wrong_facts")).to_have_count(0)
        chat.thumb("down")
        chat.expect_thumb("up", lit=False)
        chat.why("wrong_facts", "too_short", comment="There is more to it.")
        chat.thumb("down")
        chat.expect_thumb("down", lit=False)
        expect(chat.page.locator(".why")).to_have_count(0)
        wait_until_said(played.service, chat.answer_id(), *["vote"] * 6)
        said = said_of(played.service, chat.answer_id(), "vote, reasons, comment")
        assert [vote for vote, _, _ in said] == [1, -1, -1, -1, -1, 0]
        assert (json.loads(said[4][1]), said[4][2]) == (
            ["too_short", "wrong_facts"],
            "There is more to it.",
        )

    def test_thumbs_stay_lit_while_the_next_answer_is_written_and_belong_to_their_answer(
        self, chat: ChatPage
    ) -> None:
        chat.ask("One?")
        chat.thumb("up")
        chat.send("Two?")
        chat.wait_for_words()
        chat.expect_thumb("up", lit=True, turn=0)
        chat.wait_for_answer()
        chat.thumb("down")
        chat.again()
        chat.expect_thumb("up", lit=True, turn=0)
        chat.expect_thumb("down", lit=False)
        chat.reload()
        chat.expect_thumb("up", lit=True, turn=0)

    def test_an_answer_is_improved_where_it_stands(self, chat: ChatPage, played: Played) -> None:
        played.engine.says = "The sea is sweet."
        chat.ask("What is the sea?")
        chat.does("improve").click()
        expect(chat.page.locator("#correction")).to_have_value("The sea is sweet.")
        expect(chat.answers).to_be_hidden()
        chat.page.keyboard.press("Escape")
        expect(chat.answers).to_have_text("The sea is sweet.")
        chat.improve("The sea is salty.")
        expect(chat.page.locator(".corrected")).to_contain_text("The sea is salty.")
        chat.page.click(".changed summary")
        expect(chat.page.locator(".changed ins")).to_have_text("salty")
        chat.reload()
        expect(chat.page.locator(".corrected")).to_contain_text("The sea is salty.")
        assert said_of(played.service, chat.answer_id()) == [("correction",)]

    def test_a_script_from_user_model_or_correction_is_shown_and_does_not_run(
        self, chat: ChatPage, played: Played
    ) -> None:
        played.engine.says = SCRIPT
        chat.ask(SCRIPT)
        expect(chat.answers).to_have_text(SCRIPT)
        chat.improve(f"{SCRIPT} {SCRIPT}")
        expect(chat.page.locator(".changes")).to_contain_text("onerror")
        chat.page.wait_for_timeout(500)
        assert chat.page.evaluate("window.hacked") is None

    def test_copying_and_reporting_an_answer_are_recorded(
        self, chat: ChatPage, played: Played
    ) -> None:
        chat.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        played.engine.says = "**Salt** water."
        chat.ask("What is the sea?")
        chat.page.get_by_label("Copy the question").click()  # nobody's answer
        chat.does("copy").click()
        expect(chat.toast).to_have_text("Copied.")
        assert chat.page.evaluate("navigator.clipboard.readText()") == "**Salt** water."
        chat.does("details").click()
        chat.page.get_by_role("button", name="Report this answer").click()
        expect(chat.turns).to_contain_text("Reported")
        wait_until_said(played.service, chat.answer_id(), "copy", "flag")

    def test_consent_is_a_box_that_stays_as_it_was_left(
        self, chat: ChatPage, played: Played
    ) -> None:
        before = len(played.service.workspace.curation.refusing())
        chat.page.click("#settings")
        expect(chat.page.locator("#consent")).to_be_checked()
        chat.page.locator("#consent").uncheck()
        wait_until(lambda: len(played.service.workspace.curation.refusing()) == before + 1)
        chat.reload()
        chat.page.click("#settings")
        expect(chat.page.locator("#consent")).not_to_be_checked()


def test_the_console_shows_the_counts_and_promotes_and_rolls_back(
    newcomer: Newcomer, url: str, service: Service
) -> None:
    chat = newcomer(url)
    chat.ask("Tell me about the sea.")
    bundle = make_bundle(service.workspace.home.bundles, service.workspace.base)
    report = {
        "verdict": "better",
        "pairs": 9,
        "gain": {"estimate": 0.5},
        "incumbent_accuracy": 0.4,
        "candidate_accuracy": 0.9,
    }
    service.workspace.registry.add(bundle, report)
    page = chat.page
    page.goto(f"{url}/console")
    desk, lineage = page.locator("#desk"), page.locator("#lineage")
    expect(desk).to_contain_text("beats base, which is live", timeout=20_000)
    expect(lineage).to_contain_text(f"r1 ({bundle[7:13]})better", timeout=20_000)
    page.get_by_label("Release", exact=True).click()
    page.get_by_role("option", name=bundle[7:19]).click()
    page.click("#promote")
    expect(page.locator("#asked textarea")).to_have_value(re.compile(bundle[7:19]))
    assert service.slots.live is None  # a click alone asks
    page.get_by_label("Why (it is recorded)").fill("people like it")
    page.click("#confirm")
    expect(page.get_by_text("Promoted: the next turn uses it.")).to_be_visible(timeout=30_000)
    status = page.locator("#status textarea")
    expect(status).to_have_value(re.compile(bundle[7:19]), timeout=20_000)
    assert service.slots.live == bundle
    assert service.workspace.registry.history()[0].note == "people like it"
    page.click("#rollback")
    page.click("#confirm")
    expect(status).to_have_value(re.compile("^Live: base"), timeout=20_000)
