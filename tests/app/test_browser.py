"""The pages in a real Chromium, over a real server and the tiny model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from app.service import Service
from tests.helpers import make_bundle

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]
BOT = "#chat [data-testid=bot]"
SCRIPT = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture
def chat(chromium: Browser, url: str) -> Iterator[Page]:
    """The chat page of a new person."""
    context = chromium.new_context(locale="en-US")
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#question textarea")).to_be_visible(timeout=30_000)
    yield page
    context.close()


def ask(page: Page, question: str) -> None:
    page.fill("#question textarea", question)
    page.click("#send")
    expect(page.locator("#question textarea")).to_have_value("")


def wait_until_stored(service: Service, **wanted: int) -> dict[str, int]:
    """Wait for the store to count what is wanted; returns all counts."""
    import time

    deadline = time.monotonic() + 20
    while True:
        counts = service.workspace.store.counts()
        if all(counts[name] == count for name, count in wanted.items()):
            return counts
        assert time.monotonic() < deadline, f"{wanted} never came: {counts}"
        time.sleep(0.05)


def last_answer(service: Service) -> dict[str, Any]:
    with service.workspace.database.read() as connection:
        query = "SELECT * FROM answers ORDER BY created_at DESC LIMIT 1"
        return dict(connection.exec_driver_sql(query).mappings().one())


def test_ask_vote_correct_and_regenerate(chat: Page, service: Service) -> None:
    ask(chat, "Tell me about the sea.")
    expect(chat.locator(BOT)).not_to_have_text("…", timeout=20_000)
    wait_until_stored(service, answers=1)

    chat.get_by_label("Dislike").first.click()
    wait_until_stored(service, votes_down=1)
    chat.get_by_label("Like", exact=True).first.click()
    wait_until_stored(service, votes_up=1, votes_down=0)

    chat.click("#correct")
    chat.fill("#correction textarea", "The sea is salty.")
    chat.click("#save-correction")
    wait_until_stored(service, corrections=1)
    expect(chat.get_by_text("Your correction, saved")).to_be_visible()

    chat.click("#regenerate")
    counts = wait_until_stored(service, answers=2)
    assert counts["turns"] == 1


def test_stop_ends_a_long_answer(
    chat: Page, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    long = replace(service.chat._sampling, max_new_tokens=1_500, ignore_eos=True)
    monkeypatch.setattr(service.chat, "_sampling", long)
    ask(chat, "Tell me everything.")
    expect(chat.locator(BOT)).not_to_have_text("…", timeout=20_000)
    chat.click("#stop")
    expect(chat.get_by_text("Stopped.")).to_be_visible(timeout=20_000)
    assert last_answer(service)["status"] == "stopped"


def test_a_second_question_continues_the_conversation_and_new_chat_does_not(
    chat: Page, service: Service
) -> None:
    for number, question in enumerate(("One?", "Two?"), start=1):
        ask(chat, question)
        wait_until_stored(service, answers=number)
        expect(chat.locator(BOT)).to_have_count(number, timeout=20_000)
        chat.wait_for_timeout(500)  # the stream's last event reaches the page
    chat.click("#new-chat")
    expect(chat.locator(BOT)).to_have_count(0)
    ask(chat, "Three?")
    wait_until_stored(service, answers=3)
    with service.workspace.database.read() as connection:
        query = "SELECT question, parent_answer_id IS NOT NULL FROM turns ORDER BY created_at"
        rows = connection.exec_driver_sql(query).all()
    assert [tuple(row) for row in rows] == [("One?", 0), ("Two?", 1), ("Three?", 0)]


def test_a_thought_is_folded_apart_from_the_answer(
    chat: Page, service: Service, model_says: Callable[[str], None]
) -> None:
    model_says("One and one.\nAnswer: two")
    chat.get_by_label("Prompt mode").click()
    chat.get_by_role("option", name="cot").click()
    ask(chat, "Add one and one.")
    expect(chat.get_by_text("Thought")).to_be_visible(timeout=20_000)
    expect(chat.locator(BOT).last).to_contain_text("two")
    wait_until_stored(service, answers=1)
    stored = last_answer(service)
    assert (stored["thought"], stored["text"]) == ("One and one.", "two")


def test_a_refused_question_says_why_and_comes_back_into_the_box(
    chat: Page, service: Service
) -> None:
    question = "water " * 3_000
    chat.fill("#question textarea", question)
    chat.click("#send")
    expect(chat.get_by_text("too long").first).to_be_visible(timeout=20_000)
    expect(chat.locator("#question textarea")).to_have_value(question)
    assert service.workspace.store.counts()["turns"] == 0


def test_a_script_from_user_model_or_correction_is_shown_and_does_not_run(
    chat: Page, service: Service, model_says: Callable[[str], None]
) -> None:
    model_says(SCRIPT)
    ask(chat, SCRIPT)
    wait_until_stored(service, answers=1)
    chat.wait_for_timeout(1_000)
    assert last_answer(service)["text"] in SCRIPT  # as far as the token limit let it
    chat.wait_for_timeout(500)
    chat.click("#correct")
    chat.fill("#correction textarea", SCRIPT)
    chat.click("#save-correction")
    wait_until_stored(service, corrections=1)
    chat.wait_for_timeout(1_000)
    assert chat.evaluate("window.hacked") is None


def test_the_console_shows_the_counts_and_promotes_and_rolls_back(
    chat: Page, url: str, service: Service
) -> None:
    ask(chat, "Tell me about the sea.")
    wait_until_stored(service, answers=1)
    bundle = make_bundle(service.workspace.bundles, service.workspace.base)
    report = {
        "verdict": "better", "pairs": 9, "gain": {"estimate": 0.5},
        "incumbent_accuracy": 0.4, "candidate_accuracy": 0.9,
    }  # fmt: skip
    service.workspace.registry.add(bundle, report)
    chat.goto(f"{url}/console")
    expect(chat.locator("#feedback")).to_contain_text("answers", timeout=20_000)
    expect(chat.locator("#releases")).to_contain_text(bundle[7:19], timeout=20_000)
    chat.get_by_label("Release", exact=True).click()
    chat.get_by_role("option", name=bundle[7:19]).click()
    chat.click("#promote")
    expect(chat.get_by_text("Promoted: the next turn uses it.")).to_be_visible(timeout=30_000)
    expect(chat.locator("#status")).to_contain_text(bundle[7:19], timeout=20_000)
    assert service.slots.live == bundle
    chat.click("#rollback")
    expect(chat.locator("#status")).to_contain_text("base", timeout=20_000)


def test_a_chinese_browser_gets_chinese_labels(chromium: Browser, url: str) -> None:
    context = chromium.new_context(locale="zh-CN")
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#send")).to_have_text("发送", timeout=30_000)
    context.close()
