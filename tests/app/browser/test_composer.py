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
        played.engine.says, played.engine.token_seconds = "So. " * 2_000, 0.3
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

    def test_chains_of_which_no_two_agree_are_said_to_differ(
        self, chat: ChatPage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers = iter(("one", "two"))
        monkeypatch.setattr(
            "app.answering.self_consistency.final_answer", lambda _text: next(answers)
        )
        chat.choose_mode("self-consistency")
        chat.page.click("#open-advanced")
        chat.page.fill("#samples", "2")
        chat.ask("Add one and one.")
        expect(votes(chat)).to_have_text("No two of 2 chains agree: one (1), two (1)")

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


PIRATE = "You talk like a pirate."


def keep(chat: ChatPage, title: str, text: str, kind: str) -> None:
    """Write a prompt of one's own in the dialogue, which is left open."""
    chat.page.select_option("#prompt-kind", kind)
    chat.page.fill("#prompt-title", title)
    chat.page.fill("#prompt-text", text)
    chat.page.click("#save-prompt")
    expect(chat.page.get_by_text(f"Saved: {title}")).to_be_visible()


def leave_dialogue(chat: ChatPage) -> None:
    chat.page.keyboard.press("Escape")
    expect(chat.page.locator("dialog")).to_have_count(0)
    chat.question_box.focus()


def keep_preset(chat: ChatPage) -> None:
    chat.page.select_option("#preset", label="My prompts…")
    keep(chat, "Pirate", PIRATE, "system")
    leave_dialogue(chat)


def told(played: Played) -> str:
    """The system prompt of the last question."""
    return played.engine.requests[-1].messages[0].content


class TestSystemPrompts:
    def test_a_preset_is_kept_chosen_and_remembered_by_the_conversation(
        self, chat: ChatPage, played: Played
    ) -> None:
        preset = chat.page.locator("#preset")
        expect(preset).to_have_value("")
        keep_preset(chat)
        expect(preset).to_have_value("")  # the dialogue is no choice
        chat.page.select_option("#preset", label="Pirate")
        chat.reload()
        expect(preset.locator("option:checked")).to_have_text("Pirate")
        chat.ask("Who are you?")
        assert told(played) == PIRATE
        pirates = chat.conversation
        chat.new_chat()
        expect(preset).to_have_value("")
        chat.ask("Who are you?")
        assert told(played) == played.service.workspace.settings.system_prompt
        chat.open(pirates)
        expect(preset.locator("option:checked")).to_have_text("Pirate")
        chat.page.select_option("#preset", value="")
        chat.again()
        assert told(played) == PIRATE  # another answer to the question as it was asked
        chat.ask("And now?")
        assert told(played) == played.service.workspace.settings.system_prompt

    def test_one_changes_ones_prompts_and_takes_back_a_removal(self, chat: ChatPage) -> None:
        keep_preset(chat)
        chat.page.select_option("#preset", label="My prompts…")
        chat.page.click("[data-does=edit-prompt]")
        expect(chat.page.locator("#prompt-text")).to_have_value(PIRATE)
        keep(chat, "Sea dog", "Ahoy.", "system")
        rows = chat.page.locator(".prompt .prompt-title")
        expect(rows).to_have_text(["Sea dog"])
        chat.page.click("[data-does=remove-prompt]")
        expect(rows).to_have_count(0)
        chat.page.get_by_role("button", name="Undo").click()
        expect(rows).to_have_text(["Sea dog"])
        leave_dialogue(chat)
        expect(chat.page.locator("#preset option")).to_have_text(
            ["Assistant (default)", "Sea dog", "My prompts…"]
        )


class TestSavedPrompts:
    @pytest.fixture
    def chat(self, chat: ChatPage) -> ChatPage:
        """The page of a person who keeps two prompts."""
        chat.page.select_option("#preset", label="My prompts…")
        keep(chat, "Rhyme", "Write a {{form}} about {{subject}}, please.", "saved")
        keep(chat, "In short", "In three sentences, please.", "saved")
        leave_dialogue(chat)
        return chat

    def options(self, chat: ChatPage) -> Locator:
        return chat.page.locator("#slash [role=option] span")

    def selected(self, chat: ChatPage) -> str:
        return str(chat.page.evaluate("getSelection().toString()"))

    def test_a_slash_lists_them_and_the_fields_of_the_chosen_one_are_filled_in_by_tab(
        self, chat: ChatPage, played: Played
    ) -> None:
        chat.question_box.press_sequentially("/")
        expect(self.options(chat)).to_have_text(["In short", "Rhyme", "Save as prompt…"])
        chat.question_box.press_sequentially("rh")
        expect(self.options(chat)).to_have_text(["Rhyme", "Save as prompt…"])
        active = chat.question_box.get_attribute("aria-activedescendant")
        expect(chat.page.locator(f"#{active}")).to_have_attribute("aria-selected", "true")
        chat.page.keyboard.press("Enter")
        expect(chat.page.locator("#slash")).to_be_hidden()
        assert self.selected(chat) == "{{form}}"
        chat.page.keyboard.type("limerick")
        chat.page.keyboard.press("Tab")
        assert self.selected(chat) == "{{subject}}"
        chat.page.keyboard.type("rain")
        chat.page.keyboard.press("Enter")
        expect(chat.questions).to_have_text(["Write a limerick about rain, please."])
        chat.wait_for_answer()
        chat.question_box.fill("Hm")
        chat.page.keyboard.press("Tab")  # goes on through the page again
        assert chat.focused() != "question"

    def test_arrows_and_clicks_choose_and_escape_leaves_what_was_typed(
        self, chat: ChatPage
    ) -> None:
        chat.question_box.press_sequentially("/")
        chat.page.keyboard.press("ArrowUp")
        chat.page.keyboard.press("ArrowUp")
        chat.page.keyboard.press("Enter")
        assert self.selected(chat) == "{{form}}"
        chat.question_box.fill("")
        chat.question_box.press_sequentially("/")
        self.options(chat).first.click()
        expect(chat.question_box).to_have_value("In three sentences, please.")
        expect(chat.question_box).to_be_focused()
        chat.question_box.fill("")
        chat.question_box.press_sequentially("/etc")
        chat.page.keyboard.press("Escape")
        chat.question_box.press_sequentially("/hosts?")
        expect(chat.page.locator("#slash")).to_be_hidden()
        chat.page.keyboard.press("Enter")
        expect(chat.questions).to_have_text(["/etc/hosts?"])

    def test_what_was_typed_is_saved_as_a_prompt(self, chat: ChatPage) -> None:
        chat.question_box.press_sequentially("/Translate {{text}}.")
        chat.page.keyboard.press("ArrowDown")
        chat.page.keyboard.press("Enter")
        expect(chat.page.locator("#prompt-text")).to_have_value("Translate {{text}}.")
        keep(chat, "Translation", "Translate {{text}}.", "saved")
        leave_dialogue(chat)
        chat.question_box.fill("")
        chat.question_box.press_sequentially("/trans")
        expect(self.options(chat)).to_have_text(["Translation", "Save as prompt…"])


class TestThinking:
    def test_a_model_without_a_switch_shows_none(self, chat: ChatPage, played: Played) -> None:
        expect(chat.page.locator("#thinking")).to_be_hidden()
        chat.ask("Why?")
        assert played.engine.requests[-1].thinking is None

    def test_thoughts_are_switched_off_and_stay_off(
        self, played: Played, newcomer: Newcomer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(played.engine, "thinks_unasked", True)
        chat = newcomer(played.url)
        switch = chat.page.get_by_role("button", name="Think first")
        expect(switch).to_have_attribute("aria-pressed", "true")
        chat.ask("Why?")
        assert played.engine.requests[-1].thinking is True
        switch.click()
        chat.ask("Why not?")
        assert played.engine.requests[-1].thinking is False
        chat.does("details").click()
        expect(chat.page.locator("dialog dl")).to_contain_text("Think firstno")
        chat.reload()
        expect(switch).to_have_attribute("aria-pressed", "false")
