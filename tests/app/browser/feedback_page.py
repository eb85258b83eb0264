"""The page "My feedback" as a person uses it, in the tab of a chat page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, expect

from tests.app.chat_page import PATIENCE_MS, ChatPage


class FeedbackPage:
    """The page in a person's tab; `open` shows it."""

    def __init__(self, chat: ChatPage) -> None:
        self.chat = chat
        self.page = chat.page

    def open(self) -> FeedbackPage:
        """Go there by the side bar."""
        self.page.click("#my-feedback")
        return self.wait_until_drawn()

    def wait_until_drawn(self) -> FeedbackPage:
        """Wait until what was said, and what is shown beside it, is there."""
        expect(self.page.locator("#my-decisions")).to_be_visible(timeout=PATIENCE_MS)
        return self

    @property
    def summary(self) -> Locator:
        """How many things were said, and what became of how many."""
        return self.page.locator("#feedback-summary")

    @property
    def statements(self) -> Locator:
        """What was said, the newest first."""
        return self.page.locator(".said")

    def became(self, place: int = 0) -> Locator:
        """What became of a statement."""
        return self.statements.nth(place).locator(".became")

    def lineage(self, place: int = 0) -> Locator:
        """Its snapshot and its release."""
        return self.statements.nth(place).locator(".lineage")

    def does(self, what: str, place: int = 0) -> Locator:
        """A button under a statement."""
        return self.statements.nth(place).locator(f"[data-does={what}]")

    def sides(self, place: int = 0) -> Locator:
        """Answers side by side under a statement."""
        return self.statements.nth(place).locator(".side-by-side")

    # What is theirs to decide

    def decide(self) -> FeedbackPage:
        """Open what is theirs to decide."""
        if self.page.locator("#my-decisions").get_attribute("open") is None:
            self.page.locator("#my-decisions summary").click()
        return self

    def consent(self, allowed: bool) -> None:
        """Let one's words be trained on, or not."""
        self.decide().page.set_checked("#my-consent", allowed)

    def download(self, folder: Path) -> dict[str, Any]:
        """All their data, from the file."""
        with self.decide().page.expect_download() as begun:
            self.page.click("#download")
        begun.value.save_as(folder / "data.json")
        return dict(json.loads((folder / "data.json").read_text("utf-8")))

    def forget_me(self) -> None:
        """Be forgotten, and say that this is meant."""
        self.decide().page.click("#forget")
        self.page.click("#forget-sure")
        expect(self.page.locator("dialog")).to_have_count(0, timeout=PATIENCE_MS)

    # Examples

    @property
    def examples(self) -> Locator:
        """Answers that are shown as examples, on this page or in an answer's details."""
        return self.page.locator(".examples [data-example]")

    def open_examples(self) -> Locator:
        """Unfold them."""
        self.page.locator("#own-examples summary").click()
        return self.examples

    def remove_example(self, place: int = 0) -> None:
        """Have one shown as an example no more."""
        self.examples.nth(place).locator("[data-does=remove-example]").click()
