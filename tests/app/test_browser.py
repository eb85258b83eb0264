"""The pages in a real Chromium, over a real server and the tiny model."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from app.service import Service
from tests.app.conftest import NEEDS_CHROMIUM
from tests.helpers import make_bundle

pytestmark = NEEDS_CHROMIUM
BOT = "#chat [data-testid=bot]"
SCRIPT = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


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
    box = page.locator("#question textarea")
    box.fill(question)
    for _ in range(100):  # while an answer is on its way, the next question stays in the box
        page.click("#send")
        page.wait_for_timeout(200)
        if not box.input_value():
            return
    raise AssertionError(f"{question!r} was never sent")


def wait_until_stored(service: Service, **wanted: int) -> dict[str, int]:
    """Wait for the store to count what is wanted; returns all counts."""
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

    expect(chat.locator("#changes")).to_contain_text("salty")

    chat.click("#regenerate")
    counts = wait_until_stored(service, answers=2, regenerations=1)
    assert counts["turns"] == 1


def test_stop_ends_a_long_answer(
    chat: Page, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = replace(service.chat._sampling, max_new_tokens=1_500, ignore_eos=True)
    monkeypatch.setattr(service.chat, "_sampling", long)
    ask(chat, "Tell me everything.")
    expect(chat.locator(BOT)).not_to_have_text("…", timeout=20_000)
    chat.click("#stop")
    expect(chat.get_by_text("Stopped.")).to_be_visible(timeout=20_000)
    assert last_answer(service)["status"] == "stopped"


def test_a_new_chat_is_empty_and_stays_so_while_an_answer_is_running(
    chat: Page, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = replace(service.chat._sampling, max_new_tokens=1_500, ignore_eos=True)
    monkeypatch.setattr(service.chat, "_sampling", long)
    ask(chat, "Tell me everything.")
    expect(chat.locator(BOT)).not_to_have_text("…", timeout=20_000)
    chat.click("#new-chat")
    expect(chat.locator(BOT)).to_have_count(0, timeout=20_000)
    deadline = time.monotonic() + 20
    while last_answer(service)["status"] == "streaming" and time.monotonic() < deadline:
        chat.wait_for_timeout(100)
    assert last_answer(service)["status"] == "stopped"
    expect(chat.locator(BOT)).to_have_count(0)


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
    chat.fill("#correction textarea", f"{SCRIPT} {SCRIPT}")
    chat.click("#save-correction")
    wait_until_stored(service, corrections=1)
    expect(chat.locator("#changes")).to_contain_text("onerror")
    chat.wait_for_timeout(1_000)
    assert chat.evaluate("window.hacked") is None


def events(service: Service, columns: str) -> list[tuple[Any, ...]]:
    """What people said, in the order they said it."""
    with service.workspace.database.read() as connection:
        rows = connection.exec_driver_sql(f"SELECT {columns} FROM events ORDER BY id")
        return [tuple(row) for row in rows]


def test_a_thumb_asks_why_and_the_reasons_are_stored_with_the_vote(
    chat: Page, service: Service, model_says: Callable[[str], None]
) -> None:
    model_says("Salt water.")
    ask(chat, "What is the sea?")
    wait_until_stored(service, answers=1)
    chat.get_by_label("Like", exact=True).first.click()
    expect(chat.get_by_label("Facts are right")).to_be_visible()
    expect(chat.get_by_label("Wrong facts")).to_have_count(0)
    chat.get_by_label("Dislike").first.click()
    chat.get_by_label("Wrong facts").check()
    chat.get_by_label("Too short").check()
    chat.fill("#comment input, #comment textarea", "There is more to it.")
    chat.click("#send-reasons")
    expect(chat.locator("#why")).to_have_count(0)
    said = events(service, "vote, reasons, comment")
    assert [(vote, bool(reasons)) for vote, reasons, _ in said] == [
        (1, False),
        (-1, False),
        (-1, True),
    ]
    assert (json.loads(said[-1][1]), said[-1][2]) == (
        ["too_short", "wrong_facts"], "There is more to it.",
    )  # fmt: skip
    assert service.workspace.store.counts()["votes"] == 1


def test_thumbs_stay_lit_while_the_next_answer_streams_and_leave_with_their_answer(
    chat: Page, service: Service
) -> None:
    ask(chat, "One?")
    wait_until_stored(service, answers=1)
    chat.get_by_label("Like", exact=True).first.click()
    wait_until_stored(service, votes_up=1)
    ask(chat, "Two?")
    wait_until_stored(service, answers=2)
    expect(chat.locator(BOT)).to_have_count(2, timeout=20_000)
    chat.wait_for_timeout(500)  # the stream's last event reaches the page
    expect(chat.get_by_label("Liked", exact=True)).to_have_count(1)
    chat.get_by_label("Dislike", exact=True).last.click()
    wait_until_stored(service, votes_down=1)
    chat.click("#regenerate")
    wait_until_stored(service, answers=3)
    chat.wait_for_timeout(500)
    expect(chat.get_by_label("Liked", exact=True)).to_have_count(1)
    expect(chat.get_by_label("Disliked", exact=True)).to_have_count(0)  # a new answer, no thumb


def test_copying_and_reporting_an_answer_are_recorded(
    chat: Page, service: Service, model_says: Callable[[str], None]
) -> None:
    chat.context.grant_permissions(["clipboard-read", "clipboard-write"])
    model_says("Salt water.")
    ask(chat, "What is the sea?")
    wait_until_stored(service, answers=1)
    expect(chat.locator(BOT)).to_have_text("Salt water.", timeout=20_000)
    chat.get_by_label("Copy message").first.click()  # the question: nobody's answer
    chat.get_by_label("Copy message").last.click()
    wait_until_stored(service, copies=1)
    assert chat.evaluate("navigator.clipboard.readText()") == "Salt water."
    chat.click("#report")
    wait_until_stored(service, flags=1)
    answer_id = last_answer(service)["id"]
    assert events(service, "kind, answer_id") == [("copy", answer_id), ("flag", answer_id)]


def compare(chat: Page, service: Service, say: Callable[[str], None]) -> dict[str, str]:
    """Ask, get "Salt." and compare it with "Water."; returns what stands where."""
    say("Salt.")
    ask(chat, "What is the sea?")
    wait_until_stored(service, answers=1)
    expect(chat.locator(BOT)).to_have_text("Salt.", timeout=20_000)
    say("Water.")
    chat.click("#compare")
    expect(chat.locator("#choose-left")).to_be_enabled(timeout=20_000)
    expect(chat.locator("#chat")).to_have_count(0)  # which of the two was there first is hidden
    sides = ("left", "right")
    return {side: chat.locator(f"#compare-{side} [data-testid=bot]").inner_text() for side in sides}


@pytest.mark.parametrize("first_is_left", [True, False])
def test_the_better_of_two_answers_is_stored_with_its_place_and_goes_on(
    chat: Page,
    service: Service,
    model_says: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    first_is_left: bool,
) -> None:
    monkeypatch.setattr("app.ui.compare.secrets.choice", lambda _two: first_is_left)
    shown = compare(chat, service, model_says)
    assert shown["left" if first_is_left else "right"] == "Salt."
    assert shown["right" if first_is_left else "left"] == "Water."
    chat.click("#choose-left")
    wait_until_stored(service, comparisons=1, regenerations=0)
    expect(chat.locator(BOT)).to_have_text(shown["left"])
    with service.workspace.database.read() as connection:
        query = "SELECT left_answer_id, right_answer_id FROM comparisons"
        left, right = connection.exec_driver_sql(query).one()
    texts = service.workspace.store.texts([left, right])
    assert (texts[left], texts[right]) == (shown["left"], shown["right"])
    assert events(service, "kind, choice") == [("choice", "left")]

    model_says("More.")
    ask(chat, "And then?")
    wait_until_stored(service, turns=2)
    with service.workspace.database.read() as connection:
        query = "SELECT parent_answer_id FROM turns WHERE question = 'And then?'"
        assert connection.exec_driver_sql(query).scalar_one() == left


def test_who_leaves_a_comparison_without_choosing_leaves_an_answer_and_nothing_else(
    chat: Page, service: Service, model_says: Callable[[str], None]
) -> None:
    compare(chat, service, model_says)
    model_says("More.")
    ask(chat, "And then?")
    wait_until_stored(service, answers=3)
    expect(chat.locator(BOT)).to_have_text(["Salt.", "More."], timeout=20_000)
    expect(chat.locator("#choose-left")).to_have_count(0)
    assert events(service, "kind") == []
    with service.workspace.database.read() as connection:
        query = "SELECT count(*) FROM comparisons"
        assert connection.exec_driver_sql(query).scalar_one() == 0


def test_who_leaves_while_the_second_answer_is_made_gets_the_chat_back(
    chat: Page,
    service: Service,
    model_says: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model_says("Salt.")
    ask(chat, "What is the sea?")
    wait_until_stored(service, answers=1)
    expect(chat.locator(BOT)).to_have_text("Salt.", timeout=20_000)
    model_says("Water. " * 700)
    long = replace(service.chat._sampling, max_new_tokens=1_500)
    monkeypatch.setattr(service.chat, "_sampling", long)
    chat.click("#compare")
    expect(chat.locator("#compare-panel")).to_contain_text("Water.", timeout=20_000)
    expect(chat.locator("#choose-left")).to_be_disabled()
    model_says("More.")
    ask(chat, "And then?")
    expect(chat.locator(BOT)).to_have_text(["Salt.", "More."], timeout=20_000)
    wait_until_stored(service, answers=3, comparisons=0)
    chat.wait_for_timeout(500)
    expect(chat.locator("#compare-panel")).to_have_count(0)


def test_consent_is_a_box_that_stays_as_it_was_left(chat: Page, service: Service) -> None:
    box = chat.get_by_label("My conversations may be used to improve the assistant")
    expect(box).to_be_checked()
    box.uncheck()
    expect(chat.get_by_text("Saved.")).to_be_visible()
    assert len(service.workspace.curation.refusing()) == 1
    chat.reload()
    expect(box).not_to_be_checked(timeout=20_000)


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
    status = chat.locator("#status textarea")
    expect(status).to_have_value(re.compile(bundle[7:19]), timeout=20_000)
    assert service.slots.live == bundle
    chat.click("#rollback")
    expect(status).to_have_value(re.compile("^Live: base"), timeout=20_000)


def test_a_chinese_browser_gets_chinese_labels(chromium: Browser, url: str) -> None:
    context = chromium.new_context(locale="zh-CN")
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#send")).to_have_text("发送", timeout=30_000)
    expect(page.locator("#compare")).to_have_text("对比")
    page.click("#compare")
    expect(page.get_by_text("还没有回答。")).to_be_visible()
    context.close()
