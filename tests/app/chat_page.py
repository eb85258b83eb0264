"""The chat page as a person uses it, in a browser that Playwright drives."""

from __future__ import annotations

import re
from typing import Any, Literal

from playwright.sync_api import Locator, Page, expect

PATIENCE_MS = 30_000  # a model on a busy machine is slow; what takes longer never comes
Thumb = Literal["up", "down"]
FOCUSED = "() => document.activeElement.id || document.activeElement.dataset.does || ''"


class ChatPage:
    """One tab that shows the chat page at `url`."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []  # what the browser's console shows as an error
        self.fetched: list[str] = []  # the addresses that the page asked for
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.fetched.append(request.url))

    def _heard(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    # Where the tab is

    def open(self, conversation: str = "") -> ChatPage:
        """Go to a conversation, or to an empty page."""
        self.page.goto(f"{self.url}/?c={conversation}" if conversation else self.url)
        return self.wait_until_ready()

    def reload(self) -> ChatPage:
        """Load the page again, as F5 does."""
        self.page.reload()
        return self.wait_until_ready()

    def wait_until_ready(self) -> ChatPage:
        """Wait until the page has drawn what it shows, and gradio's styles have come."""
        expect(self.page.locator("#burnish[data-ready]")).to_be_visible(timeout=PATIENCE_MS)
        expect(self.page.locator("gradio-app .contain")).to_be_attached(timeout=PATIENCE_MS)
        return self

    @property
    def conversation(self) -> str:
        """The conversation that the address names, or ""."""
        named = re.search(r"[?&]c=(\w+)", self.page.url)
        return named[1] if named else ""

    def new_chat(self) -> None:
        """Begin another conversation."""
        self.page.click("#new-chat")
        expect(self.turns).to_have_count(0)

    @property
    def conversations(self) -> Locator:
        """The conversations in the side bar."""
        return self.page.locator(".conversation a")

    # Asking

    @property
    def question_box(self) -> Locator:
        """Where a question is written."""
        return self.page.locator("#question")

    @property
    def button(self) -> Locator:
        """The one button that sends, or stops while an answer is written."""
        return self.page.locator("#send")

    @property
    def notice(self) -> Locator:
        """The sentence over the question's box that says what went wrong."""
        return self.page.locator(".composer .notice")

    def send(self, question: str) -> None:
        """Ask, and do not wait."""
        self.question_box.fill(question)
        self.button.click()

    def ask(self, question: str) -> None:
        """Ask, and wait for the whole answer."""
        count = self.turns.count()
        self.send(question)
        expect(self.turns).to_have_count(count + 1)
        self.wait_for_answer()

    def wait_for_answer(self) -> None:
        """Wait until no answer is being written."""
        expect(self.page.locator(".turn[aria-busy]")).to_have_count(0, timeout=PATIENCE_MS)
        expect(self.button).to_have_attribute("data-state", "send", timeout=PATIENCE_MS)

    def wait_for_words(self, words: str | re.Pattern[str] = re.compile(r"\w")) -> None:
        """Wait until the newest answer has words, while it is still being written."""
        expect(self.answers.last).to_contain_text(words, timeout=PATIENCE_MS)
        expect(self.button).to_have_attribute("data-state", "stop")

    def stop(self) -> None:
        """End the answer that is being written."""
        expect(self.button).to_have_attribute("data-state", "stop")
        self.button.click()
        self.wait_for_answer()

    def ask_and_stop(self, question: str) -> None:
        """Ask, and end the answer once it has words."""
        count = self.turns.count()
        self.send(question)
        expect(self.turns).to_have_count(count + 1)
        self.wait_for_words()
        self.stop()

    def choose_mode(self, mode: str) -> None:
        """Choose the prompt mode of the next questions."""
        self.page.select_option("#mode", mode)

    # What is seen

    @property
    def turns(self) -> Locator:
        """The questions with their answers."""
        return self.page.locator(".turn")

    @property
    def questions(self) -> Locator:
        """The questions as they are shown."""
        return self.page.locator(".turn .question")

    @property
    def answers(self) -> Locator:
        """The answers as they are shown."""
        return self.page.locator(".turn .answer")

    def answer_text(self, turn: int = -1) -> str:
        """The words of an answer."""
        return self.answers.nth(turn).inner_text().strip()

    def question_text(self, turn: int = -1) -> str:
        """The words of a question."""
        return self.questions.nth(turn).inner_text().strip()

    def note(self, turn: int = -1) -> Locator:
        """What is said under an answer of how it ended."""
        return self.turns.nth(turn).locator(".note")

    def answer_id(self, turn: int = -1) -> str:
        """The id of the answer that is shown."""
        return self.turns.nth(turn).get_attribute("data-answer") or ""

    def scrolled(self) -> int:
        """How far the conversation is scrolled down, in pixels."""
        return int(self.page.evaluate("document.getElementById('scroller').scrollTop"))

    @property
    def toast(self) -> Locator:
        """What passes by."""
        return self.page.locator(".toast")

    # What is done with an answer

    def does(self, what: str, turn: int = -1) -> Locator:
        """The button of a turn that does something."""
        return self.turns.nth(turn).locator(f"[data-does={what}]").last

    def thumb(self, which: Thumb, turn: int = -1) -> None:
        """Press a thumb; where it is lit, take the vote back."""
        self.does(f"thumb_{which}", turn).click()

    def expect_thumb(self, which: Thumb, *, lit: bool, turn: int = -1) -> None:
        """Wait for a thumb to be lit, or not."""
        wanted = "true" if lit else "false"
        expect(self.does(f"thumb_{which}", turn)).to_have_attribute("aria-pressed", wanted)

    def chip(self, reason: str) -> Locator:
        """A reason that is offered after a thumb."""
        return self.page.locator(f".why .chip[data-reason={reason}]")

    def why(self, *reasons: str, comment: str = "") -> None:
        """Say why the thumb points where it points."""
        for reason in reasons:
            self.chip(reason).click()
        self.page.fill("#comment", comment)
        self.page.press("#comment", "Enter")
        expect(self.page.locator(".why")).to_have_count(0)

    def improve(self, text: str, turn: int = -1) -> None:
        """Write an answer as it should have been, and save it."""
        self.does("improve", turn).click()
        self.page.fill("#correction", text)
        self.page.click("#save-correction")
        expect(self.page.locator("#correction")).to_have_count(0)

    def again(self, turn: int = -1) -> None:
        """Ask for another answer, and wait for it."""
        before = self.answer_id(turn)
        self.does("regenerate", turn).click()
        expect(self.turns.nth(turn)).not_to_have_attribute("data-answer", before)
        self.wait_for_answer()

    def edit(self, question: str, turn: int = -1) -> None:
        """Ask a question of the conversation otherwise, and wait for the answer."""
        self.does("edit", turn).click()
        box = self.turns.nth(turn).locator(".question textarea")
        box.fill(question)
        box.press("Enter")
        self.wait_for_answer()

    def arrows(self, turn: int = -1, *, of: Literal["question", "answer"] = "answer") -> Locator:
        """The arrows between the answers to one question, or between its wordings."""
        place = ".bar" if of == "answer" else ".asked"
        return self.turns.nth(turn).locator(f"{place} .arrows")

    def compare(self) -> None:
        """Let a second answer be written beside the newest, and wait for both."""
        self.does("compare").click()
        expect(self.compared).to_be_visible(timeout=PATIENCE_MS)

    @property
    def compared(self) -> Locator:
        """Two answers side by side."""
        return self.page.locator("#compare-panel")

    @property
    def offer(self) -> Locator:
        """The question, under an answer, whether to compare it with another one."""
        return self.page.locator("#offer")

    def sides(self) -> tuple[str, str]:
        """What stands left and right."""
        left, right = self.compared.locator(".rendered").all_inner_texts()
        return left.strip(), right.strip()

    def choose(self, choice: str) -> None:
        """Say which of two answers is better."""
        self.compared.locator(f"[data-choice={choice}]").click()
        expect(self.compared).to_have_count(0)

    def menu(self, what: str, row: int = 0) -> None:
        """Choose from the menu of a conversation."""
        self.page.locator(".conversation").nth(row).hover()
        self.page.locator(".conversation button").nth(row).click()
        self.page.get_by_role("menuitem", name=what).click()

    # The look of a page over which nothing is written by hand

    def focused(self) -> str:
        """What has the keyboard: an id, or what it does."""
        return str(self.page.evaluate(FOCUSED))

    def tab_to(self, name: str, presses: int = 60) -> None:
        """Press Tab until something has the keyboard."""
        for _ in range(presses):
            if self.focused() == name:
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"Tab never reaches {name}")


def open_queue(chat: ChatPage, name: Literal["compare", "drafts"]) -> Page:
    """A queue of the console, in the chat's tab."""
    chat.page.goto(f"{chat.url}/console/{name}")
    expect(chat.page.locator("#burnish[data-ready]")).to_be_visible(timeout=PATIENCE_MS)
    return chat.page
