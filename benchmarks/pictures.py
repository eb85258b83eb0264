"""Takes the screenshots in `docs` from a real server: `python -m benchmarks.pictures`.

Starts a server with the embedded model and a fresh home, asks a few questions in Chromium and takes
screenshots: the chat, the chat on a phone (dark, in Chinese), two answers side by side, and the
page "My feedback". Then another on a home that `filled_home` has filled, for the console: the desk
and the training data. A Chinese font must be installed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path
from playwright.sync_api import Browser, Page, ViewportSize

from app.settings import load_settings
from app.workspace import Workspace
from benchmarks.filled_home import fill
from benchmarks.web import chromium
from benchmarks.web_page import ask, opened, wait_for_end
from benchmarks.web_server import WebServer, running_server

DESKTOP: ViewportSize = {"width": 1280, "height": 800}
TALL_DESKTOP: ViewportSize = {"width": 1280, "height": 1180}
PHONE: ViewportSize = {"width": 390, "height": 844}
EARLIER = (
    "Give me five ideas for a rainy Sunday with children.",
    "Write a friendly e-mail that moves a meeting to Thursday.",
    "How long do I boil an egg?",
)
CONVERSATION = (
    "Explain in three sentences why the sky is blue.",
    "How do I reverse a list in Python? Show the code.",
)
BETTER = (
    "Sunlight holds all colours. Air scatters blue light far more than red light, since blue waves"
    " are shorter. So blue reaches your eye from every part of the sky."
)


def main() -> None:
    """Take all screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=Path("docs"))
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--model-cache", type=Path, default=user_cache_path("burnish") / "models")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as home,
        running_server(Path(home), "embedded", arguments.model_cache) as server,
        chromium(arguments.chromium) as browser,
    ):
        on_the_desktop(server, browser, arguments.into)
        on_the_phone(server, browser, arguments.into)
    with (
        tempfile.TemporaryDirectory() as home,
        filled(Path(home), arguments.model_cache) as server,
        chromium(arguments.chromium) as browser,
    ):
        of_the_console(server, browser, arguments.into)


@contextmanager
def filled(home: Path, model_cache: Path) -> Iterator[WebServer]:
    """Run a server on a home with a month of made-up use."""
    settings = load_settings(home=home, model="embedded", model_cache=model_cache)
    workspace = Workspace(settings)
    fill(workspace)
    workspace.close()
    with running_server(home, "embedded", model_cache) as server:
        yield server


def of_the_console(server: WebServer, browser: Browser, into: Path) -> None:
    """Take the screenshots of the desk, and of an example with the reason why it is there."""
    page = browser.new_context(viewport=TALL_DESKTOP, locale="en-GB").new_page()
    page.goto(f"{server.url}/console/")
    page.wait_for_selector("#lineage li", timeout=60_000)
    page.wait_for_selector("#canary-status .arm")
    picture(page, into / "console.png")
    page.get_by_role("tab", name="Training data").click()
    page.locator("#rows [role=gridcell]").first.click()
    page.wait_for_selector("#facts textarea")
    picture(page, into / "training-data.png")


def on_the_desktop(server: WebServer, browser: Browser, into: Path) -> None:
    """Take the screenshots of chat, comparison and feedback."""
    page = browser.new_context(viewport=DESKTOP, locale="en-GB").new_page()
    opened(page, server)
    for question in EARLIER:
        ask(page, question)
        page.click("#new-chat")
    for question in CONVERSATION:
        ask(page, question)
    page.click(".turn:last-child [data-does=thumb_up]")
    page.wait_for_selector(".why")
    page.click("[data-reason=right_facts]")
    picture(page, into / "chat.png")

    page.click(".turn:last-child .why .link")
    page.click(".turn:last-child [data-does=change]")
    page.click("[data-change=shorter]")
    page.wait_for_selector("#send[data-state=stop]")
    wait_for_end(page)
    page.click("#open-advanced")
    page.fill("#sampling-temperature", "1")
    page.click("#open-advanced")
    page.click(".turn:last-child [data-does=compare]")
    page.wait_for_selector("#compare-panel", timeout=120_000)
    picture(page, into / "compare.png")
    page.keyboard.press("1")

    page.click(".turn:first-child [data-does=improve]")
    page.fill("#correction", BETTER)
    page.click("#save-correction")
    page.wait_for_selector(".corrected")
    page.goto(f"{server.url}/?view=feedback")
    page.wait_for_selector("#burnish[data-ready]")
    picture(page, into / "feedback.png")


def on_the_phone(server: WebServer, browser: Browser, into: Path) -> None:
    """Take the screenshot of the chat at 390 pixels, dark and in Chinese."""
    context = browser.new_context(
        viewport=PHONE,
        locale="zh-CN",
        color_scheme="dark",
        is_mobile=True,
        has_touch=True,
        device_scale_factor=2,
    )
    page = opened(context.new_page(), server)
    picture(page, into / "chat-phone.png")


def picture(page: Page, path: Path) -> None:
    """Take a screenshot once all animations have ended."""
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)
    page.screenshot(path=path)


if __name__ == "__main__":
    main()
