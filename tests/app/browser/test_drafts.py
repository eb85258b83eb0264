"""The console's queue of drafts, decided about by keys alone, in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Route, expect

from app.web.chat.drafts_api import DRAFTS_SENT
from feedback_store.ai_feedback.drafts import Draft
from tests.app.browser.test_axe import LOOKS, serious
from tests.app.chat_page import PATIENCE_MS, ChatPage, open_queue
from tests.app.conftest import NEEDS_CHROMIUM, Played
from tests.app.stored import rows
from tests.support.waiting import wait_until

pytestmark = NEEDS_CHROMIUM
PASSAGE = {
    "source": "leave.md",
    "heading": "Leave › 年假",
    "text": "Employees have **thirty** days of vacation a year.\n\n员工每年有三十天年假。",
}


@pytest.fixture
def drafts(played: Played) -> Iterator[list[str]]:
    """Five drafts that wait; their questions. None is left behind."""
    questions = [f"How many days of vacation are there in year {n}?" for n in range(5)]
    for question in questions:
        draft = Draft("Handbook", PASSAGE, question, "There are thirty days.", "base")
        played.service.workspace.drafts.add([draft])
    yield questions
    drop_waiting(played)


def drop_waiting(played: Played) -> None:
    for each in played.service.workspace.drafts.waiting():
        played.service.workspace.drafts.drop(each.id)


@pytest.fixture
def page(newcomer: Callable[..., ChatPage], played: Played) -> Iterator[ChatPage]:
    chat = newcomer(played.url)
    yield chat
    assert chat.complaints == []


def decided(played: Played, questions: list[str]) -> list[tuple[str, str]]:
    """The status and the answer of the drafts with these questions, or with edited ones."""
    query = "SELECT status, answer FROM drafts ORDER BY created_at DESC, id LIMIT ?"
    found = rows(played.service, query, len(questions))[::-1]
    return [(row["status"], row["answer"]) for row in found]


def test_a_text_that_is_written_in_stays_as_more_of_the_queue_comes(
    page: ChatPage, drafts: list[str]
) -> None:
    opened = open_queue(page, "drafts")
    held: list[Route] = []
    opened.route("**/drafts/waiting?*", lambda route: held.append(route))
    for _ in drafts[1:DRAFTS_SENT]:  # until the last one that is on the page
        opened.keyboard.press("s")
    expect(opened.locator("#drafted-question")).to_have_text(drafts[DRAFTS_SENT - 1])
    opened.keyboard.press("2")
    answer = opened.locator("[data-field=answer]")
    answer.evaluate("written => { window.written = written }")
    while not held:
        opened.wait_for_timeout(20)
    with opened.expect_response("**/drafts/waiting?*"):
        held[0].continue_()
    opened.wait_for_timeout(100)
    assert opened.evaluate("window.written === document.querySelector('[data-field=answer]')")


def test_five_are_decided_about_by_keys_alone(
    page: ChatPage, played: Played, drafts: list[str]
) -> None:
    opened = open_queue(page, "drafts")
    question = opened.locator("#drafted-question")
    expect(question).to_have_text(drafts[0])
    expect(opened.locator("#draft-passage strong")).to_have_text("thirty")  # as Markdown
    expect(opened.get_by_text("Handbook · leave.md · Leave › 年假")).to_be_visible()
    opened.keyboard.press("1")
    assert question.inner_text() == drafts[1]  # it is on the page already: nothing is waited for
    opened.keyboard.press("3")
    opened.keyboard.press("s")
    assert question.inner_text() == drafts[3]
    expect(opened.locator("#progress")).to_have_text("2 done, 3 waiting")
    opened.keyboard.press("2")
    answer = opened.locator("[data-field=answer]")
    expect(answer).to_be_focused()
    answer.fill("123, thirty days.")  # keys are letters there
    opened.keyboard.press("Control+Enter")
    assert question.inner_text() == drafts[4]
    opened.keyboard.press("u")
    expect(answer).to_have_value("123, thirty days.")
    opened.keyboard.press("1")
    opened.keyboard.press("3")
    expect(opened.locator("#nothing")).to_be_visible()
    as_it_was = "There are thirty days."
    expected = [
        ("approved", f"{as_it_was} [1]"),
        ("dropped", as_it_was),
        ("waiting", as_it_was),
        ("approved", "123, thirty days. [1]"),
        ("dropped", as_it_was),
    ]
    wait_until(lambda: decided(played, drafts) == expected)
    training_set = played.service.workspace.training_set
    training_set.refresh()
    learnt = [d.completion.text for d in training_set.load_examples()[1].demonstrations]
    assert sorted(learnt) == ["123, thirty days. [1]", f"{as_it_was} [1]"]


def test_an_empty_answer_comes_back_with_the_reason(
    page: ChatPage, played: Played, drafts: list[str]
) -> None:
    opened = open_queue(page, "drafts")
    opened.keyboard.press("2")
    opened.locator("[data-field=answer]").fill(" ")
    opened.keyboard.press("Control+Enter")
    expect(opened.locator(".toast")).to_contain_text("the answer is empty")
    expect(opened.locator("[data-field=question]")).to_have_value(drafts[0])
    page.complaints.clear()  # the browser reports the refusal


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_serious_in_the_drafts(
    newcomer: Callable[..., ChatPage], played: Played, drafts: list[str], look: str
) -> None:
    opened = open_queue(newcomer(played.url, **LOOKS[look]), "drafts")
    assert serious(opened) == []
    opened.locator("[data-choice=edit]").click()
    assert serious(opened) == []
    width = opened.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert width <= 0  # nothing is cut off at the side
    drop_waiting(played)
    opened.reload()
    expect(opened.locator("#nothing")).to_be_visible(timeout=PATIENCE_MS)
    assert serious(opened) == []
